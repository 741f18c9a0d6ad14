"""Cleanup, health, metrics and what else operators ask for, as control/ports.py promises it."""

import pytest

from control.ports import (
    Exchange,
    Ports,
)
from daemon.catalog.records import CleanupReport
from daemon.tasks import background
from daemon.upkeep.cleanup import CleanupBusy
from tests.support.command_parts import REPORT, FakeCleaner
from tests.support.refusals import refusal
from tests.support.running_core import Running


class TestCleaner:
    @pytest.fixture
    def cleaner(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> FakeCleaner:
        cleaner = FakeCleaner()
        monkeypatch.setattr(running.core, "cleanup", cleaner)
        return cleaner

    async def test_every_figure_is_told(self, ports: Ports, cleaner: FakeCleaner) -> None:
        report = await ports.cleaner.run(dry_run=True)
        assert cleaner.asked == [True]
        assert {name: getattr(report, name) for name in CleanupReport.__slots__} == {
            name: getattr(REPORT, name) for name in CleanupReport.__slots__
        }

    @pytest.mark.parametrize(
        ("error", "expected"),
        [(CleanupBusy(), (409, "CONFLICT")), (OSError("gone"), (503, "UNAVAILABLE"))],
    )
    async def test_a_pass_that_cannot_be_made(
        self, ports: Ports, cleaner: FakeCleaner, error: Exception, expected: tuple[int, str]
    ) -> None:
        cleaner.error = error
        assert await refusal(ports.cleaner.run(dry_run=False)) == expected

    async def test_a_real_pass(self, running: Running, ports: Ports) -> None:
        async with background(running.core.run()):
            assert (await ports.cleaner.run(dry_run=True)).stopped is None


class TestTheRest:
    def test_health_is_the_cores(self, running: Running, ports: Ports) -> None:
        assert ports.health is running.core.health

    def test_metrics_are_rendered(self, ports: Ports) -> None:
        body, content_type = ports.metrics_page.render("")
        assert b'uplinkd_build_info{python="' in body
        assert content_type.startswith("text/plain")

    def test_requests_are_logged_without_query_or_secret(self, running: Running, ports: Ports) -> None:
        exchange = Exchange("r1", "GET", "/v1/files/{id}", "/v1/files/1", 404, 0.1, 7, "RESOURCE_UNKNOWN", "", "::1")
        ports.log.exchange(exchange)
        (line,) = running.log.lines
        assert line == {
            "event": "http request",
            "log_level": "info",
            "request": "r1",
            "method": "GET",
            "path": "/v1/files/1",
            "status": 404,
            "duration_s": 0.1,
            "sent_bytes": 7,
            "error": "RESOURCE_UNKNOWN",
            "subject": None,
            "peer": "::1",
        }

    @pytest.mark.parametrize(
        ("route", "status", "level"),
        [("/healthz", 200, "debug"), ("/metrics", 401, "debug"), ("/readyz", 503, "info"), ("unmatched", 404, "info")],
    )
    def test_probes_fill_no_log_unless_they_fail(
        self, running: Running, ports: Ports, route: str, status: int, level: str
    ) -> None:
        ports.log.exchange(Exchange("r1", "GET", route, route, status, 0.1, 7, "", "", "::1"))
        assert [line["log_level"] for line in running.log.lines] == [level]

    def test_a_fault_is_logged_with_its_traceback(self, running: Running, ports: Ports) -> None:
        error = ValueError("broken")
        ports.log.failure("r1", "/v1/files", error)
        (line,) = running.log.lines
        assert (line["log_level"], line["request"], line["exc_info"]) == ("error", "r1", error)

    def test_request_ids_are_new_each_time(self, ports: Ports) -> None:
        one, other = ports.request_ids.new(), ports.request_ids.new()
        assert one != other
        assert len(one) == 24
