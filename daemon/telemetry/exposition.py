"""The daemon's counters as Prometheus metrics. docs/metrics.md lists every family.

Each scrape builds the families from the plain counters, on the event loop's thread.
"""

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from prometheus_client import CollectorRegistry, ProcessCollector, core
from prometheus_client.exposition import choose_encoder

from daemon.telemetry.metrics import ConnectionPhase, Histogram, HttpMetrics, Key, Metrics
from protocol.errors import ErrorCode

PREFIX = "uplinkd_"

FORMAT_VERSIONS = ("0.0.1", "0.0.4", "1.0.0")
"""The versions of the two text formats that scrapers request."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """The state at the time of a scrape. Values that are None and states that are absent are unknown and not shown."""

    connections: Mapping[ConnectionPhase, int]
    uploads: Mapping[str, int]
    """By state in the catalog."""
    pending_bytes: int
    """Received but not durable yet, as the window counts it."""
    receive_pool_lent_bytes: int
    disk_free_bytes: int | None
    disk_size_bytes: int | None
    uploads_doubtful: int
    """Uploads that had lost acknowledged bytes when the daemon started."""


class Exposition:
    """All families of one process, in its own registry."""

    __slots__ = ("_gauges", "_metrics", "_registry", "_version")

    def __init__(self, metrics: Metrics, gauges: Callable[[], Gauges], version: str) -> None:
        """`gauges` is called at each scrape and must neither block nor raise. `version` is the daemon's."""
        self._metrics = metrics
        self._gauges = gauges
        self._version = version
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Body and content type, in the format of the Accept header: Prometheus text or OpenMetrics."""
        encode, content_type = choose_encoder(",".join(filter(_has_known_version, accept.split(","))))
        return encode(self._registry), content_type

    def collect(self) -> Iterator[core.Metric]:
        """All families. prometheus_client calls this method of a collector."""
        metrics, gauges = self._metrics, self._gauges()
        build = {"version": self._version, "python": platform.python_version()}
        yield core.InfoMetricFamily(PREFIX + "build", "Versions of the daemon and Python.", build)
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
    yield _counters("connections_refused", "Devices without a place.", ("limit",), metrics.connections_refused)
    yield _counter("accept_failures", "Pauses of accepting for lack of resources.", metrics.accept_failures)
    handshakes = {(kind, "ok" if error is None else error): n for (kind, error), n in metrics.handshakes.items()}
    yield _counters("handshakes", "Handshakes completed or refused.", ("credential", "result"), handshakes)
    yield _counters("received_bytes", "File bytes of intact chunks.", ("checksum",), metrics.received_bytes)
    yield _counters("received_chunks", "Intact chunks.", ("checksum",), metrics.received_chunks)
    yield _counter("duplicate_bytes", "File bytes received again.", metrics.duplicate_bytes)
    yield _counters("nacks", "Ranges refused by NACK.", ("code",), metrics.nacks)
    errors = {(code, code.scope.value): n for code, n in metrics.errors.items()}
    yield _counters("errors", "Errors sent to devices.", ("code", "scope"), errors)


def _uploads(metrics: Metrics, gauges: Gauges) -> Iterator[core.Metric]:
    yield _gauges("uploads", "Uploads and files in the catalog.", "state", gauges.uploads)
    yield _counters("upload_opens", "OPENs answered.", ("outcome",), metrics.opens)
    yield _counter("upload_resumes", "OPENs that resumed above byte 0.", metrics.resumes)
    yield _counter("upload_takeovers", "OPENs that fenced a live stream.", metrics.takeovers)
    yield _counters("uploads_ended", "Uploads that ended.", ("state",), metrics.ended)


def _durability(metrics: Metrics, gauges: Gauges) -> Iterator[core.Metric]:
    yield _counter("acks", "ACKs sent.", metrics.acks)
    yield _histogram("ack_latency_seconds", "Time from receiving a byte until it is durable.", metrics.ack_latency)
    yield _counter("commit_cycles", "Commit cycles completed.", metrics.cycle_duration.count)
    yield _histogram("commit_cycle_duration_seconds", "Duration of a commit cycle.", metrics.cycle_duration)
    yield _histogram("commit_cycle_size_bytes", "Bytes that a commit cycle made durable.", metrics.cycle_bytes)
    yield _histogram("commit_cycle_uploads", "Uploads that a commit cycle advanced.", metrics.cycle_uploads)
    yield _histogram("catalog_batch_duration_seconds", "Duration of a transaction.", metrics.catalog_batch_duration)
    yield _gauge("pending_bytes", "Bytes not durable yet, and 256 for each of their chunks.", gauges.pending_bytes)
    yield _counters("storage_failures", "Storage operations that failed.", ("kind",), metrics.storage_failures)


def _machine(metrics: Metrics, gauges: Gauges) -> Iterator[core.Metric]:
    yield _gauge("receive_pool_lent_bytes", "Receive buffers in use.", gauges.receive_pool_lent_bytes)
    yield _counter("receive_pool_waits", "Times a connection waited for memory.", metrics.receive_pool_waits)
    yield _counter("receive_pool_reclaims", "Slow chunks that lost their memory.", metrics.receive_pool_reclaims)
    yield _histogram("event_loop_pause_seconds", "How late the event loop ran.", metrics.loop_pause)
    yield _gauge("event_loop_pause_max_seconds", "Longest pause since the last scrape.", metrics.loop_pause_max_s)
    metrics.loop_pause_max_s = 0.0
    yield _gauge("disk_free_bytes", "Free bytes on the data directory's disk.", gauges.disk_free_bytes)
    yield _gauge("uploads_doubtful", "Uploads that lost acknowledged bytes.", gauges.uploads_doubtful)
    yield _gauge("disk_size_bytes", "Size of the data directory's disk.", gauges.disk_size_bytes)


def _cleanup(metrics: Metrics) -> Iterator[core.Metric]:
    ended_s = None if metrics.cleanup_last_ended_ms is None else metrics.cleanup_last_ended_ms / 1000
    yield _counters("cleanup_runs", "Cleanup passes.", ("outcome",), metrics.cleanup_runs)
    yield _counters("cleanup_files", "Files that cleanup changed.", ("result",), metrics.cleanup_files)
    yield _counter("cleanup_freed_bytes", "Bytes that cleanup deleted.", metrics.cleanup_freed_bytes)
    yield _gauge("cleanup_last_run_timestamp_seconds", "Unix time of the last pass's end.", ended_s)
    yield _gauge("cleanup_last_run_duration_seconds", "Duration of that pass.", metrics.cleanup_last_duration_s)


def _http(http: HttpMetrics) -> Iterator[core.Metric]:
    yield _counters("http_requests", "HTTP requests answered.", ("route", "method", "status"), http.requests)
    durations = core.HistogramMetricFamily(
        PREFIX + "http_request_duration_seconds", "Time until the answer's last byte.", labels=("route", "method")
    )
    for key, histogram in http.durations.items():
        durations.add_metric(key, histogram.cumulative(), histogram.total)
    yield durations
    yield _counter("http_sent_bytes", "Bytes of HTTP bodies sent.", http.sent_bytes)
    yield _counters("http_errors", "HTTP requests refused or failed.", ("code",), http.errors)


def _has_known_version(accepted: str) -> bool:
    """Whether the library can handle this part of Accept. It raises on malformed versions and accepts future ones."""
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
    """The value of a label: the registry's name of an error code, the lower-case name of other enums."""
    if isinstance(value, IntEnum):
        return value.name if isinstance(value, ErrorCode) else value.name.lower()
    return "none" if value is None else str(value)
