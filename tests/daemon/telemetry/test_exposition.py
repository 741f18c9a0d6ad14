"""Every count reaches the scraper under the documented name, type and labels."""

import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client import core
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from daemon.telemetry.exposition import PREFIX, Exposition, Gauges
from daemon.telemetry.metrics import (
    CleanupOutcome,
    CleanupResult,
    CloseReason,
    ConnectionLimit,
    ConnectionPhase,
    Metrics,
    OpenOutcome,
    StorageFailure,
)
from protocol.constants import ChecksumKind, CredentialKind, UploadState
from protocol.errors import ErrorCode, ErrorScope

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"

GAUGES = Gauges(
    connections={ConnectionPhase.HANDSHAKE: 1, ConnectionPhase.OPEN: 20, ConnectionPhase.DRAINING: 3},
    uploads={"receiving": 7, "partial": 2},
    pending_bytes=4096,
    receive_pool_lent_bytes=65536,
    disk_free_bytes=10**9,
    disk_size_bytes=10**10,
    uploads_doubtful=3,
)


@dataclass(frozen=True)
class Exchange:
    method: str = "GET"
    route: str = "/v1/files/{id}"
    status: int = 200
    duration_s: float = 0.01
    sent_bytes: int = 100
    error: str = ""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(started_ms=1_700_000_000_500)


class Scraper:
    """Reads the exposition as Prometheus does: by name and labels."""

    def __init__(self, metrics: Metrics) -> None:
        self.gauges = GAUGES
        self._exposition = Exposition(metrics, lambda: self.gauges, "1.2.3")

    def families(self) -> list[core.Metric]:
        return list(parse_text(self._exposition.render("")[0].decode()))

    def value(self, sample: str, **labels: str) -> float | None:
        found = [
            s.value for f in self.families() for s in f.samples if s.name == PREFIX + sample and s.labels == labels
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def series(self, sample: str) -> list[dict[str, str]]:
        return [s.labels for f in self.families() for s in f.samples if s.name == PREFIX + sample]


@pytest.fixture
def scraper(metrics: Metrics) -> Scraper:
    return Scraper(metrics)


class TestConnections:
    def test_now_by_state(self, scraper: Scraper) -> None:
        assert [scraper.value("connections", state=s) for s in ("handshake", "open", "draining")] == [1, 20, 3]

    def test_accepted_and_closed(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.connections_accepted += 5
        metrics.connections_closed[CloseReason.LOST] += 2
        assert scraper.value("connections_accepted_total") == 5
        assert scraper.value("connections_closed_total", reason="lost") == 2
        assert scraper.value("connections_closed_total", reason="device") == 0
        metrics.connections_refused[ConnectionLimit.DEVICE] += 3
        metrics.accept_failures += 4
        assert scraper.value("connections_refused_total", limit="device") == 3
        assert scraper.value("accept_failures_total") == 4

    def test_handshakes(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.handshakes[CredentialKind.TOKEN, None] += 3
        metrics.handshakes[CredentialKind.DEVICE_SECRET, ErrorCode.UNAUTHENTICATED] += 2
        metrics.handshakes[None, ErrorCode.MAGIC_WRONG] += 1
        assert scraper.value("handshakes_total", credential="token", result="ok") == 3
        assert scraper.value("handshakes_total", credential="device_secret", result="UNAUTHENTICATED") == 2
        assert scraper.value("handshakes_total", credential="none", result="MAGIC_WRONG") == 1
        assert scraper.value("handshakes_total", credential="device_secret", result="ok") == 0

    def test_errors_carry_the_registrys_name_and_scope(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.errors[ErrorCode.CONTENT_CHANGED] += 1
        metrics.errors[ErrorCode.IDLE_TIMEOUT] += 4
        assert scraper.value("errors_total", code="CONTENT_CHANGED", scope="stream") == 1
        assert scraper.value("errors_total", code="IDLE_TIMEOUT", scope="connection") == 4

    def test_every_error_that_a_device_may_get_has_a_series_from_the_start(self, scraper: Scraper) -> None:
        codes = {labels["code"] for labels in scraper.series("errors_total") + scraper.series("nacks_total")}
        assert codes == {code.name for code in ErrorCode if code.scope is not ErrorScope.REQUEST}

    def test_receive_pool(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.receive_pool_waits += 1
        assert scraper.value("receive_pool_waits_total") == 1
        assert scraper.value("receive_pool_lent_bytes") == 65536


class TestUploads:
    def test_bytes_and_chunks_by_checksum(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.received_bytes[ChecksumKind.SUM8] += 1000
        metrics.received_chunks[ChecksumKind.SUM8] += 2
        metrics.received_bytes[ChecksumKind.CRC32C] += 2**40
        metrics.duplicate_bytes += 10
        metrics.nacks[ErrorCode.CHUNK_CORRUPT] += 1
        assert scraper.value("received_bytes_total", checksum="sum8") == 1000
        assert scraper.value("received_chunks_total", checksum="sum8") == 2
        assert scraper.value("received_bytes_total", checksum="crc32c") == 2**40
        assert scraper.value("received_chunks_total", checksum="crc32c") == 0
        assert scraper.value("duplicate_bytes_total") == 10
        assert scraper.value("nacks_total", code="CHUNK_CORRUPT") == 1

    def test_opens(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.opens[OpenOutcome.RESUMED] += 3
        metrics.resumes += 2
        metrics.takeovers += 1
        assert scraper.value("upload_opens_total", outcome="resumed") == 3
        assert scraper.value("upload_opens_total", outcome="refused") == 0
        assert scraper.value("upload_resumes_total") == 2
        assert scraper.value("upload_takeovers_total") == 1

    def test_ends_by_state(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.ended[UploadState.REJECTED] += 1
        ends = {labels["state"] for labels in scraper.series("uploads_ended_total")}
        assert ends == {"complete", "rejected", "aborted", "deleted", "expired"}
        assert scraper.value("uploads_ended_total", state="rejected") == 1

    def test_now_by_state(self, scraper: Scraper) -> None:
        assert scraper.value("uploads", state="partial") == 2


class TestDurability:
    def test_a_commit_cycle(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.cycle_done(duration_s=0.003, size_bytes=5000, uploads=30)
        metrics.cycle_done(duration_s=0.3, size_bytes=2**30, uploads=1)
        assert scraper.value("commit_cycles_total") == 2
        assert scraper.value("commit_cycle_duration_seconds_bucket", le="0.005") == 1
        assert scraper.value("commit_cycle_duration_seconds_bucket", le="0.0025") == 0
        assert scraper.value("commit_cycle_size_bytes_bucket", le="16384.0") == 1
        assert scraper.value("commit_cycle_size_bytes_bucket", le="+Inf") == 2
        assert scraper.value("commit_cycle_uploads_sum") == 31
        assert scraper.value("commit_cycle_uploads_count") == 2

    def test_acks_and_their_latency(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.acks += 1
        metrics.ack_latency.observe(0.02)
        assert scraper.value("acks_total") == 1
        assert scraper.value("ack_latency_seconds_bucket", le="0.025") == 1
        assert scraper.value("ack_latency_seconds_bucket", le="0.01") == 0

    def test_catalog_and_storage(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.catalog_batch_duration.observe(0.5)
        metrics.storage_failures[StorageFailure.DISK_FULL] += 1
        assert scraper.value("catalog_batch_duration_seconds_sum") == 0.5
        assert scraper.value("storage_failures_total", kind="disk_full") == 1
        assert scraper.value("pending_bytes") == 4096

    def test_disk(self, scraper: Scraper) -> None:
        assert (scraper.value("disk_free_bytes"), scraper.value("disk_size_bytes")) == (10**9, 10**10)
        assert scraper.value("uploads_doubtful") == 3

    def test_an_unmeasured_disk_is_not_shown_as_full(self, scraper: Scraper) -> None:
        scraper.gauges = replace(GAUGES, disk_free_bytes=None, disk_size_bytes=None)
        assert (scraper.value("disk_free_bytes"), scraper.value("disk_size_bytes")) == (None, None)


class TestCleanup:
    def test_no_last_pass_is_shown_before_the_first(self, scraper: Scraper) -> None:
        assert scraper.value("cleanup_last_run_timestamp_seconds") is None
        assert scraper.value("cleanup_last_run_duration_seconds") is None
        assert scraper.value("cleanup_runs_total", outcome="done") == 0

    def test_a_pass(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.cleanup_files[CleanupResult.STALE_DELETED] += 12
        metrics.cleanup_freed_bytes += 999
        metrics.cleanup_done(CleanupOutcome.STOPPED, duration_s=1.5, now_ms=1_700_000_100_250)
        assert scraper.value("cleanup_files_total", result="stale_deleted") == 12
        assert scraper.value("cleanup_freed_bytes_total") == 999
        assert scraper.value("cleanup_runs_total", outcome="stopped") == 1
        assert scraper.value("cleanup_last_run_timestamp_seconds") == 1_700_000_100.25
        assert scraper.value("cleanup_last_run_duration_seconds") == 1.5


class TestLoop:
    def test_the_longest_pause_is_since_the_last_scrape(self, metrics: Metrics, scraper: Scraper) -> None:
        for pause_s in (0.001, 0.3, 0.04):
            metrics.loop_paused(pause_s)
        assert scraper.value("event_loop_pause_max_seconds") == 0.3
        assert scraper.value("event_loop_pause_max_seconds") == 0.0

    def test_the_histogram_keeps_all_pauses(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.loop_paused(0.3)
        scraper.families()
        metrics.loop_paused(0.001)
        assert scraper.value("event_loop_pause_seconds_bucket", le="0.002") == 1
        assert scraper.value("event_loop_pause_seconds_count") == 2


class TestHttp:
    def test_requests_by_route_method_and_status(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.http.observe(Exchange(duration_s=0.02))
        metrics.http.observe(Exchange(duration_s=40, sent_bytes=10**9))
        metrics.http.observe(Exchange(method="DELETE", status=404, error="RESOURCE_UNKNOWN"))
        route = "/v1/files/{id}"
        assert scraper.value("http_requests_total", route=route, method="GET", status="200") == 2
        assert scraper.value("http_requests_total", route=route, method="DELETE", status="404") == 1
        assert scraper.value("http_request_duration_seconds_bucket", route=route, method="GET", le="0.025") == 1
        assert scraper.value("http_request_duration_seconds_count", route=route, method="GET") == 2
        assert scraper.value("http_request_duration_seconds_count", route=route, method="DELETE") == 1
        assert scraper.value("http_sent_bytes_total") == 10**9 + 200
        assert scraper.value("http_errors_total", code="RESOURCE_UNKNOWN") == 1

    def test_a_success_is_not_counted_as_an_error(self, metrics: Metrics, scraper: Scraper) -> None:
        metrics.http.observe(Exchange())
        assert scraper.series("http_errors_total") == []


class TestProcess:
    def test_build_and_start(self, scraper: Scraper) -> None:
        assert scraper.value("build_info", version="1.2.3", python=platform.python_version()) == 1
        assert scraper.value("start_time_seconds") == 1_700_000_000.5

    def test_the_standard_process_families_are_exposed(self, scraper: Scraper) -> None:
        names = {family.name for family in scraper.families()}
        assert {"process_resident_memory_bytes", "process_open_fds"} <= names

    def test_two_expositions_share_nothing(self, metrics: Metrics, scraper: Scraper) -> None:
        other = Metrics(started_ms=0)
        other.acks += 1
        assert (scraper.value("acks_total"), Scraper(other).value("acks_total")) == (0, 1)


@pytest.fixture
def busy(metrics: Metrics) -> Metrics:
    """Metrics in which every family has a sample."""
    metrics.http.observe(Exchange(error="INTERNAL"))
    metrics.cleanup_done(CleanupOutcome.DONE, 1, 1)
    return metrics


class TestFormat:
    def test_the_text_format_is_the_default(self, busy: Metrics) -> None:
        body, content_type = Exposition(busy, lambda: GAUGES, "1").render("text/html, */*")
        assert content_type.startswith("text/plain; version=0.0.4")
        assert b"# TYPE uplinkd_acks_total counter\n" in body

    def test_openmetrics_on_demand_passes_its_strict_parser(self, busy: Metrics) -> None:
        exposition = Exposition(busy, lambda: GAUGES, "1")
        body, content_type = exposition.render("application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text; version=1.0.0")
        assert body.endswith(b"# EOF\n")
        families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]  # the library left it untyped
        assert "uplinkd_acks" in {family.name for family in families}

    @pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
    @pytest.mark.parametrize("version", ["x", "1.x", "1.0.0.evil", "1.0.0\u00e9", "99.0.0", "9" * 5000, "-1"])
    def test_an_unknown_version_in_accept_is_ignored(self, metrics: Metrics, kind: str, version: str) -> None:
        exposition = Exposition(metrics, lambda: GAUGES, "1")
        accept = f"{kind}; version={version}; q=0.9"
        assert exposition.render(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"
        assert exposition.render(f"{accept}, application/openmetrics-text; version=1.0.0; q=0.5")[1].startswith(
            "application/openmetrics-text; version=1.0.0;"
        )

    def test_prometheus_gets_openmetrics(self, metrics: Metrics) -> None:
        accept = (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
            "text/plain;version=0.0.4;q=0.2,/;q=0.1"
        )
        _, content_type = Exposition(metrics, lambda: GAUGES, "1").render(accept)
        assert content_type.startswith("application/openmetrics-text; version=1.0.0;")


Row = tuple[str, str, frozenset[str]]


def documented() -> list[Row]:
    rows = re.findall(r"^\| `(uplinkd_\w+)` \| (\w+) \| ([\w, ]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    return [(name, kind, frozenset(labels.replace(",", " ").split())) for name, kind, labels in rows]


def exposed(busy: Metrics) -> list[Row]:
    found = []
    for family in Scraper(busy).families():
        if family.name.startswith(PREFIX):
            assert family.samples, family.name
            assert family.documentation.endswith("."), family.name
            name = family.name + ("_total" if family.type == "counter" else "")
            found.append((name, family.type, frozenset(family.samples[0].labels) - {"le"}))
    return found


class TestDocument:
    def test_it_lists_exactly_the_families_with_their_types_and_labels(self, busy: Metrics) -> None:
        assert sorted(documented()) == sorted(exposed(busy))

    def test_its_alerts_use_existing_families_and_label_values(self, busy: Metrics) -> None:
        families = Scraper(busy).families()
        names = {sample.name for family in families for sample in family.samples} | {f.name for f in families}
        values = {value for family in families for sample in family.samples for value in sample.labels.values()}
        alerts = DOCUMENT.read_text().partition("## What to alert on")[2]
        assert set(re.findall(r"uplinkd_\w+", alerts)) <= names
        assert set(re.findall(r'[{,]\w+!?="([^"]+)"', alerts)) - {"uplinkd", "500"} <= values

    def test_it_names_every_state_and_outcome(self) -> None:
        text = DOCUMENT.read_text()
        connections = (*ConnectionPhase, *CloseReason, *ConnectionLimit)
        for values in (connections, OpenOutcome, StorageFailure, CleanupResult, CleanupOutcome):
            for value in values:
                assert f"`{value}`" in text


def test_no_label_can_hold_a_device_or_a_file(busy: Metrics) -> None:
    labels = frozenset[str]().union(*(row[2] for row in exposed(busy)))
    bounded = {"state", "reason", "credential", "result", "checksum", "code", "scope", "outcome", "kind", "limit"}
    assert labels == bounded | {"route", "method", "status", "version", "python"}
