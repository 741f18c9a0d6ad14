"""What the daemon counts, and how a Prometheus scraper reads it. docs/metrics.md lists every family.

The hot path adds to plain integers; families are made of them only when somebody scrapes. All of it belongs to
the event loop's thread.
"""

import platform
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from itertools import accumulate
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, core
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from protocol.constants import ChecksumKind, CredentialKind, UploadState
from protocol.errors import ErrorCode, Scope

PREFIX = "uplinkd_"

FORMAT_VERSIONS = ("0.0.1", "0.0.4", "1.0.0")
"""Of the two text formats: those that scrapers ask for."""

DURATION_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""From a batch on a fast disk to a disk that hangs."""

HTTP_BOUNDS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600)
"""From a status answer to the download of a large file over a slow link. Few, as every route has its own."""

PAUSE_BOUNDS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""Timers tick in milliseconds, so less cannot be told; 42 ms is what one write beside a sync was seen to cost."""

CYCLE_BOUNDS_BYTES = tuple(4**exponent * 1024 for exponent in range(1, 10))
"""From one small chunk, 4 KiB, to 256 MiB."""

CYCLE_BOUNDS_UPLOADS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""From a lone device to a fleet that reports at once."""


class ConnectionPhase(StrEnum):
    """How far a connection is."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    DRAINING = "draining"


class CloseReason(StrEnum):
    """Why a connection ended."""

    DEVICE = "device"
    """The device ended it in order."""
    LOST = "lost"
    """It broke: reset, or given up by the kernel."""
    ERROR = "error"
    """The daemon ended it, and told the error."""
    DRAIN = "drain"
    """The daemon said GOAWAY, as it stops."""
    PROXY_INVALID = "proxy_invalid"
    """The load balancer's header was not one."""


class OpenOutcome(StrEnum):
    """What came of an OPEN."""

    CREATED = "created"
    RESUMED = "resumed"
    COMPLETE = "complete"
    REFUSED = "refused"


class StorageFailure(StrEnum):
    """What the disk did not do."""

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
    """By its own safeguards: the clocks disagree, or too much would have gone."""
    FAILED = "failed"


class Histogram:
    """How many observations were at or below each bound, and their total. The bounds ascend."""

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
        """Each bound and how many observations were at or below it, as Prometheus counts; the last is infinite."""
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
    """What the HTTP side counts."""

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


def _zeros(keys: Iterable[Key]) -> Counter[Key]:
    """Series that exist from the start: a rate sees the first event only if there was a zero before it."""
    return Counter(dict.fromkeys(keys, 0))


def _codes(*scopes: Scope) -> Counter[ErrorCode]:
    return _zeros(code for code in ErrorCode if code.scope in scopes)


@dataclass(slots=True, eq=False)
class Metrics:
    """Everything counted since the start. Owners add to the attributes: `metrics.received_bytes[kind] += n`."""

    started_ms: int
    """Unix time of the start."""

    connections_accepted: int = 0
    connections_closed: Counter[CloseReason] = field(default_factory=lambda: _zeros(CloseReason))
    handshakes: Counter[tuple[CredentialKind | None, ErrorCode | None]] = field(
        default_factory=lambda: _zeros((kind, None) for kind in CredentialKind)
    )
    """By kind of credential (None: not known, or none was read) and the error told (None: let in)."""

    received_bytes: Counter[ChecksumKind] = field(default_factory=lambda: _zeros(ChecksumKind))
    received_chunks: Counter[ChecksumKind] = field(default_factory=lambda: _zeros(ChecksumKind))
    duplicate_bytes: int = 0
    nacks: Counter[ErrorCode] = field(default_factory=lambda: _codes(Scope.CHUNK))
    errors: Counter[ErrorCode] = field(default_factory=lambda: _codes(Scope.STREAM, Scope.CONNECTION))
    """Told to devices by ERROR or REFUSED."""
    receive_pool_waits: int = 0

    opens: Counter[OpenOutcome] = field(default_factory=lambda: _zeros(OpenOutcome))
    resumes: int = 0
    """Opens that went on from a byte above 0."""
    takeovers: int = 0
    """Opens that fenced a stream which was alive."""
    ended: Counter[UploadState] = field(
        default_factory=lambda: _zeros(state for state in UploadState if state > UploadState.RECEIVING)
    )

    acks: int = 0
    ack_latency: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    """Seconds from a byte's receipt to its being durable."""
    cycle_duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    cycle_bytes: Histogram = field(default_factory=lambda: Histogram(CYCLE_BOUNDS_BYTES))
    cycle_uploads: Histogram = field(default_factory=lambda: Histogram(CYCLE_BOUNDS_UPLOADS))
    catalog_batch_duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS_S))
    storage_failures: Counter[StorageFailure] = field(default_factory=lambda: _zeros(StorageFailure))

    cleanup_runs: Counter[CleanupOutcome] = field(default_factory=lambda: _zeros(CleanupOutcome))
    cleanup_files: Counter[CleanupResult] = field(default_factory=lambda: _zeros(CleanupResult))
    cleanup_freed_bytes: int = 0
    cleanup_last_ended_ms: int | None = None
    """Unix time at which the last pass ended, however it did."""
    cleanup_last_duration_s: float | None = None

    loop_pause: Histogram = field(default_factory=lambda: Histogram(PAUSE_BOUNDS_S))
    loop_pause_max_s: float = 0.0
    """The longest since the last scrape, which begins it anew."""

    http: HttpMetrics = field(default_factory=HttpMetrics)

    def cycle_done(self, duration_s: float, size_bytes: int, uploads: int) -> None:
        """One commit cycle made `size_bytes` of `uploads` uploads durable."""
        self.cycle_duration.observe(duration_s)
        self.cycle_bytes.observe(size_bytes)
        self.cycle_uploads.observe(uploads)

    def cleanup_done(self, outcome: CleanupOutcome, duration_s: float, now_ms: int) -> None:
        """One cleanup pass, which was no dry run, ended at `now_ms`."""
        self.cleanup_runs[outcome] += 1
        self.cleanup_last_duration_s = duration_s
        self.cleanup_last_ended_ms = now_ms

    def loop_paused(self, pause_s: float) -> None:
        """The event loop came `pause_s` late to something that was due."""
        self.loop_pause.observe(pause_s)
        self.loop_pause_max_s = max(self.loop_pause_max_s, pause_s)


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is true at the moment of a scrape. None and absent states are not known yet, and not shown."""

    connections: Mapping[ConnectionPhase, int]
    uploads: Mapping[str, int]
    """By the catalog's states."""
    pending_bytes: int
    """Received, and not durable yet."""
    receive_pool_lent_bytes: int
    disk_free_bytes: int | None
    disk_size_bytes: int | None
    uploads_doubtful: int
    """Uploads found at the start to lack bytes that were acknowledged."""


class Exposition:
    """All families of one process, in a registry of their own."""

    __slots__ = ("_gauges", "_metrics", "_registry", "_version")

    def __init__(self, metrics: Metrics, gauges: Callable[[], Gauges], version: str) -> None:
        """`gauges` is called with each scrape; it must neither block nor raise. `version` is the daemon's."""
        self._metrics = metrics
        self._gauges = gauges
        self._version = version
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Body and content type, in the text format that suits the Accept header: Prometheus's or OpenMetrics."""
        encode, content_type = choose_encoder(",".join(filter(_has_known_version, accept.split(","))))
        return encode(self._registry), content_type

    def collect(self) -> Iterator[core.Metric]:
        """prometheus_client's interface of a collector."""
        metrics, gauges = self._metrics, self._gauges()
        build = {"version": self._version, "python": platform.python_version()}
        yield core.InfoMetricFamily(PREFIX + "build", "What runs.", build)
        yield _gauge("start_time_seconds", "Unix time of the start.", metrics.started_ms / 1000)
        yield from _connections(metrics, gauges)
        yield from _uploads(metrics, gauges)
        yield from _durability(metrics, gauges)
        yield from _machine(metrics, gauges)
        yield from _cleanup(metrics)
        yield from _http(metrics.http)


def _connections(metrics: Metrics, gauges: Gauges) -> Iterator[core.Metric]:
    yield _gauges("connections", "Connections now.", "state", gauges.connections)
    yield _counter("connections_accepted", "Connections accepted.", metrics.connections_accepted)
    yield _counters("connections_closed", "Connections ended.", ("reason",), metrics.connections_closed)
    handshakes = {(kind, "ok" if error is None else error): n for (kind, error), n in metrics.handshakes.items()}
    yield _counters("handshakes", "Handshakes decided.", ("credential", "result"), handshakes)
    yield _counters("received_bytes", "File bytes of intact chunks.", ("checksum",), metrics.received_bytes)
    yield _counters("received_chunks", "Intact chunks.", ("checksum",), metrics.received_chunks)
    yield _counter("duplicate_bytes", "File bytes received that were there already.", metrics.duplicate_bytes)
    yield _counters("nacks", "Ranges refused by NACK.", ("code",), metrics.nacks)
    errors = {(code, code.scope.value): n for code, n in metrics.errors.items()}
    yield _counters("errors", "Errors told to devices.", ("code", "scope"), errors)


def _uploads(metrics: Metrics, gauges: Gauges) -> Iterator[core.Metric]:
    yield _gauges("uploads", "Uploads and files in the catalog.", "state", gauges.uploads)
    yield _counters("upload_opens", "OPENs answered.", ("outcome",), metrics.opens)
    yield _counter("upload_resumes", "OPENs that went on from a byte above 0.", metrics.resumes)
    yield _counter("upload_takeovers", "OPENs that fenced a live stream.", metrics.takeovers)
    yield _counters("uploads_ended", "Uploads that ended.", ("state",), metrics.ended)


def _durability(metrics: Metrics, gauges: Gauges) -> Iterator[core.Metric]:
    yield _counter("acks", "ACKs sent.", metrics.acks)
    yield _histogram("ack_latency_seconds", "From a byte's receipt to its being durable.", metrics.ack_latency)
    yield _counter("commit_cycles", "Commit cycles done.", metrics.cycle_duration.count)
    yield _histogram("commit_cycle_duration_seconds", "Duration of a commit cycle.", metrics.cycle_duration)
    yield _histogram("commit_cycle_size_bytes", "Bytes that a commit cycle made durable.", metrics.cycle_bytes)
    yield _histogram("commit_cycle_uploads", "Uploads that a commit cycle moved on.", metrics.cycle_uploads)
    yield _histogram("catalog_batch_duration_seconds", "Duration of a transaction.", metrics.catalog_batch_duration)
    yield _gauge("pending_bytes", "Bytes received and not durable yet.", gauges.pending_bytes)
    yield _counters("storage_failures", "What the disk did not do.", ("kind",), metrics.storage_failures)


def _machine(metrics: Metrics, gauges: Gauges) -> Iterator[core.Metric]:
    yield _gauge("receive_pool_lent_bytes", "Receive buffers in use.", gauges.receive_pool_lent_bytes)
    yield _counter("receive_pool_waits", "Times a connection waited for a buffer.", metrics.receive_pool_waits)
    yield _histogram("event_loop_pause_seconds", "How late the event loop ran.", metrics.loop_pause)
    yield _gauge("event_loop_pause_max_seconds", "Longest pause since the last scrape.", metrics.loop_pause_max_s)
    metrics.loop_pause_max_s = 0.0
    yield _gauge("disk_free_bytes", "Room on the data directory's disk.", gauges.disk_free_bytes)
    yield _gauge("uploads_doubtful", "Uploads that lack acknowledged bytes.", gauges.uploads_doubtful)
    yield _gauge("disk_size_bytes", "Size of the data directory's disk.", gauges.disk_size_bytes)


def _cleanup(metrics: Metrics) -> Iterator[core.Metric]:
    ended_s = None if metrics.cleanup_last_ended_ms is None else metrics.cleanup_last_ended_ms / 1000
    yield _counters("cleanup_runs", "Cleanup passes.", ("outcome",), metrics.cleanup_runs)
    yield _counters("cleanup_files", "Files that cleanup dealt with.", ("result",), metrics.cleanup_files)
    yield _counter("cleanup_freed_bytes", "Bytes that cleanup deleted.", metrics.cleanup_freed_bytes)
    yield _gauge("cleanup_last_run_timestamp_seconds", "Unix time of the last pass's end.", ended_s)
    yield _gauge("cleanup_last_run_duration_seconds", "Duration of that pass.", metrics.cleanup_last_duration_s)


def _http(http: HttpMetrics) -> Iterator[core.Metric]:
    yield _counters("http_requests", "HTTP requests answered.", ("route", "method", "status"), http.requests)
    durations = core.HistogramMetricFamily(
        PREFIX + "http_request_duration_seconds", "Until the answer's last byte.", labels=("route", "method")
    )
    for key, histogram in http.durations.items():
        durations.add_metric(key, histogram.cumulative(), histogram.total)
    yield durations
    yield _counter("http_sent_bytes", "Bytes of HTTP bodies sent.", http.sent_bytes)
    yield _counters("http_errors", "HTTP requests refused or failed.", ("code",), http.errors)


def _has_known_version(accepted: str) -> bool:
    """Whether the library may see this part of Accept: it raises at odd versions and promises those yet to come."""
    parameters = [parameter.strip() for parameter in accepted.split(";")]
    return all(p.removeprefix("version=") in FORMAT_VERSIONS for p in parameters if p.startswith("version="))


def _counter(name: str, text: str, value: int) -> core.Metric:
    return core.CounterMetricFamily(PREFIX + name, text, value)


def _counters(name: str, text: str, labels: tuple[str, ...], values: Mapping[Key, int]) -> core.Metric:
    family = core.CounterMetricFamily(PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric([_label(part) for part in (key if isinstance(key, tuple) else (key,))], value)
    return family


def _gauge(name: str, text: str, value: float | None) -> core.Metric:
    return core.GaugeMetricFamily(PREFIX + name, text, value)


def _gauges(name: str, text: str, label: str, values: Mapping[Key, int]) -> core.Metric:
    family = core.GaugeMetricFamily(PREFIX + name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((_label(key),), value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> core.Metric:
    return core.HistogramMetricFamily(PREFIX + name, text, histogram.cumulative(), histogram.total)


def _label(value: object) -> str:
    """A label's value: the registry's names as they are everywhere else, other enums in lower case."""
    if isinstance(value, IntEnum):
        return value.name if isinstance(value, ErrorCode) else value.name.lower()
    return "none" if value is None else str(value)
