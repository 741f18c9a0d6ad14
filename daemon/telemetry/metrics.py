"""The daemon's counters: plain integers, so that the hot path stays fast. Only the event loop's thread may use them."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Protocol, TypeVar

from prometheus_client.utils import floatToGoString

from protocol.constants import ChecksumKind, CredentialKind, UploadState
from protocol.errors import ErrorCode, ErrorScope

DURATION_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""From a batch on a fast disk to a hanging disk."""

HTTP_BOUNDS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600)
"""From a status request to the download of a large file over a slow link. Few, because every route has its own."""

PAUSE_BOUNDS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""Timers have a resolution of a millisecond. The longest stall measured for a write during a sync was 42 ms."""

CYCLE_BOUNDS_BYTES = tuple(4**exponent * 1024 for exponent in range(1, 10))
"""From one small chunk, 4 KiB, to 256 MiB."""

CYCLE_BOUNDS_UPLOADS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""From a single device to a fleet that reports at the same time."""


class ConnectionPhase(StrEnum):
    """The phase of a connection. Only OPEN ones have a place; all that come before share the room of the half-open."""

    PROXY = "proxy"
    """The load balancer's PROXY header is awaited."""
    TLS = "tls"
    HANDSHAKE = "handshake"
    """HELLO or PROOF is awaited or judged."""
    CLOSING = "closing"
    """It was refused, and reads why."""
    OPEN = "open"
    """Admitted."""
    DRAINING = "draining"


class CloseReason(StrEnum):
    """Why a connection ended."""

    DEVICE = "device"
    """The device closed it."""
    LOST = "lost"
    """It was reset, or the kernel's retransmissions timed out."""
    ERROR = "error"
    """The daemon closed it with an error."""
    DRAIN = "drain"
    """The daemon closed it with GOAWAY in order to stop."""
    PROXY_INVALID = "proxy_invalid"
    """The load balancer's PROXY header was invalid."""
    TLS_FAILED = "tls_failed"
    """The TLS handshake failed."""
    TIMEOUT = "timeout"
    """PROXY header or TLS handshake took too long."""
    EVICTED = "evicted"
    """It was not admitted yet, and made room for a newer one."""


class ConnectionLimit(StrEnum):
    """The limit for which a device that had proven who it is got no place."""

    SERVER = "server"
    ADDRESS = "address"
    TENANT = "tenant"
    DEVICE = "device"


class OpenOutcome(StrEnum):
    """How an OPEN was answered."""

    CREATED = "created"
    RESUMED = "resumed"
    COMPLETE = "complete"
    REFUSED = "refused"


class StorageFailure(StrEnum):
    """The kind of a storage operation that failed."""

    DISK_FULL = "disk_full"
    WRITE = "write"
    SYNC = "sync"
    READ = "read"
    DELETE = "delete"
    CATALOG = "catalog"


class CleanupResult(StrEnum):
    """What a cleanup pass did with a file."""

    STALE_DELETED = "stale_deleted"
    STALE_KEPT = "stale_kept"
    RETENTION_EXPIRED = "retention_expired"
    REJECTED_DELETED = "rejected_deleted"
    TOMBSTONES_PURGED = "tombstones_purged"
    ORPHANS_QUARANTINED = "orphans_quarantined"


class CleanupOutcome(StrEnum):
    """How a cleanup pass ended."""

    DONE = "done"
    STOPPED = "stopped"
    """A safeguard stopped it: the clocks disagree, or it would have deleted too much."""
    FAILED = "failed"


class Histogram:
    """Counts observations by bound, and sums them. The bounds must ascend."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Each bound, with the number of observations at or below it, as Prometheus expects. The last is infinite."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


class HttpExchange(Protocol):
    """One answered HTTP request. `route` is a template, `method` one of a few; `error` is the registry's name or ""."""

    @property
    def method(self) -> str: ...
    @property
    def route(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def error(self) -> str: ...


@dataclass(slots=True, eq=False)
class HttpMetrics:
    """The counters of the control plane."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    durations: defaultdict[tuple[str, str], Histogram] = field(
        default_factory=lambda: defaultdict(lambda: Histogram(HTTP_BOUNDS_S))
    )
    errors: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0

    def observe(self, exchange: HttpExchange) -> None:
        """Count one exchange."""
        key = exchange.route, exchange.method
        self.requests[*key, exchange.status] += 1
        self.durations[key].observe(exchange.duration_s)
        self.sent_bytes += exchange.sent_bytes
        if exchange.error:
            self.errors[exchange.error] += 1


Key = TypeVar("Key", bound=str | int | tuple[str | int | None, ...])
"""The value of a counter's label, or of its labels."""


def _zeros(keys: Iterable[Key]) -> Counter[Key]:
    """Series that exist from the start, because a rate misses the first event unless a zero precedes it."""
    return Counter(dict.fromkeys(keys, 0))


def _codes(*scopes: ErrorScope) -> Counter[ErrorCode]:
    return _zeros(code for code in ErrorCode if code.scope in scopes)


@dataclass(slots=True, eq=False)
class Metrics:
    """All counters since the start. Users add to the attributes: `metrics.received_bytes[kind] += n`."""

    started_ms: int
    """Unix time of the start."""

    connections_accepted: int = 0
    connections_closed: Counter[CloseReason] = field(default_factory=lambda: _zeros(CloseReason))
    connections_refused: Counter[ConnectionLimit] = field(default_factory=lambda: _zeros(ConnectionLimit))
    accept_failures: int = 0
    """How often accepting paused because the system had no descriptor or no memory for a connection."""
    handshakes: Counter[tuple[CredentialKind | None, ErrorCode | None]] = field(
        default_factory=lambda: _zeros((kind, None) for kind in CredentialKind)
    )
    """By credential kind (None: unknown or not read) and error (None: admitted)."""

    received_bytes: Counter[ChecksumKind] = field(default_factory=lambda: _zeros(ChecksumKind))
    received_chunks: Counter[ChecksumKind] = field(default_factory=lambda: _zeros(ChecksumKind))
    duplicate_bytes: int = 0
    nacks: Counter[ErrorCode] = field(default_factory=lambda: _codes(ErrorScope.CHUNK))
    errors: Counter[ErrorCode] = field(default_factory=lambda: _codes(ErrorScope.STREAM, ErrorScope.CONNECTION))
    """Sent to devices in ERROR or REFUSED."""
    receive_pool_waits: int = 0
    """How often a connection had to wait for receive memory, or had to wait again because too little was returned."""
    receive_pool_reclaims: int = 0
    """How often memory was taken back from a slow chunk, because others waited."""

    opens: Counter[OpenOutcome] = field(default_factory=lambda: _zeros(OpenOutcome))
    resumes: int = 0
    """OPENs that resumed above byte 0."""
    takeovers: int = 0
    """OPENs that fenced a live stream."""
    ended: Counter[UploadState] = field(
        default_factory=lambda: _zeros(state for state in UploadState if state > UploadState.RECEIVING)
    )

    acks: int = 0
    ack_latency: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    """Seconds from a byte's receipt until it is durable."""
    cycle_duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    cycle_bytes: Histogram = field(default_factory=lambda: Histogram(CYCLE_BOUNDS_BYTES))
    cycle_uploads: Histogram = field(default_factory=lambda: Histogram(CYCLE_BOUNDS_UPLOADS))
    catalog_batch_duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    storage_failures: Counter[StorageFailure] = field(default_factory=lambda: _zeros(StorageFailure))

    cleanup_runs: Counter[CleanupOutcome] = field(default_factory=lambda: _zeros(CleanupOutcome))
    cleanup_files: Counter[CleanupResult] = field(default_factory=lambda: _zeros(CleanupResult))
    cleanup_freed_bytes: int = 0
    cleanup_last_ended_ms: int | None = None
    """Unix time at which the last pass ended, whatever its outcome."""
    cleanup_last_duration_s: float | None = None

    loop_pause: Histogram = field(default_factory=lambda: Histogram(PAUSE_BOUNDS_S))
    loop_pause_max_s: float = 0.0
    """The longest pause since the last scrape; each scrape resets it."""

    http: HttpMetrics = field(default_factory=HttpMetrics)

    def cycle_done(self, duration_s: float, size_bytes: int, uploads: int) -> None:
        """Count a commit cycle that made `size_bytes` of `uploads` uploads durable."""
        self.cycle_duration.observe(duration_s)
        self.cycle_bytes.observe(size_bytes)
        self.cycle_uploads.observe(uploads)

    def cleanup_done(self, outcome: CleanupOutcome, duration_s: float, now_ms: int) -> None:
        """Count a cleanup pass that ended at `now_ms`. Dry runs do not count."""
        self.cleanup_runs[outcome] += 1
        self.cleanup_last_duration_s = duration_s
        self.cleanup_last_ended_ms = now_ms

    def loop_paused(self, pause_s: float) -> None:
        """Count a pause: the event loop ran a timer `pause_s` late."""
        self.loop_pause.observe(pause_s)
        self.loop_pause_max_s = max(self.loop_pause_max_s, pause_s)
