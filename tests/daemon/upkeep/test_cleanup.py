"""When a pass runs, and the clocks that it trusts. Catalog and files are real."""

import asyncio
from dataclasses import replace

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import State
from daemon.telemetry.metrics import CleanupOutcome, Metrics
from daemon.upkeep.cleanup import Cleanup, CleanupBusy
from tests.support.cleanup_bench import (
    NOTHING,
    OLD_MS,
    POLICY,
)
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_machine import NOW_MS, CapturedLog, FakeClock, FakeEntropy
from tests.support.populated_store import Keeping


async def test_an_empty_store_needs_no_cleanup(cleanup: Cleanup, metrics: Metrics) -> None:
    assert await cleanup.once(dry_run=False) == NOTHING
    assert metrics.cleanup_runs[CleanupOutcome.DONE] == 1
    assert metrics.cleanup_last_ended_ms == NOW_MS


@pytest.mark.parametrize("jump_s", [-3600, 3600])
async def test_a_pass_after_the_wall_clock_was_set_removes_nothing(
    cleanup: Cleanup, kept: Keeping, clock: FakeClock, metrics: Metrics, log: CapturedLog, jump_s: int
) -> None:
    await kept.add(1, OLD_MS - 3_600_000)
    clock.pass_s(300)
    clock.now_ms += jump_s * 1000
    assert "was set by" in str((await cleanup.once(dry_run=True)).stopped)
    report = await cleanup.once(dry_run=False)
    assert f"was set by {jump_s:+d} s within 300 s" in str(report.stopped)
    assert await kept.states() == {1: State.RECEIVING}
    assert metrics.cleanup_runs[CleanupOutcome.STOPPED] == 1
    assert log.at("warning") == ["cleanup stopped"] * 2
    clock.pass_s(300)
    assert (await cleanup.once(dry_run=False)).stale_deleted == 1


async def test_a_small_correction_of_the_clock_stops_no_pass(cleanup: Cleanup, clock: FakeClock) -> None:
    clock.pass_s(300)
    clock.now_ms += 60_000
    assert (await cleanup.once(dry_run=False)).stopped is None


# The timer.


class Passes:
    """Counts passes that begin, each of which waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kept: Keeping) -> None:
        self.begun = 0
        self.changed = asyncio.Condition()
        self.may_go_on = asyncio.Event()
        monkeypatch.setattr(kept.catalog, "holding", self._holding)

    async def reached(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S), self.changed:
            await self.changed.wait_for(lambda: self.begun >= count)

    async def _holding(self) -> int:
        async with self.changed:
            self.begun += 1
            self.changed.notify_all()
        await self.may_go_on.wait()
        raise CatalogFailed("each of these passes fails")


async def test_one_pass_at_a_time(cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch, kept)
    first = asyncio.ensure_future(cleanup.once(dry_run=False))
    await passes.reached(1)
    with pytest.raises(CleanupBusy):
        await cleanup.once(dry_run=True)
    passes.may_go_on.set()
    assert (await first).stopped == "failed: each of these passes fails"
    await cleanup.once(dry_run=True)


async def test_the_timer_continues_after_a_failed_pass(
    cleanup: Cleanup, kept: Keeping, entropy: FakeEntropy, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleanup.policy = replace(POLICY, interval_s=0.0005, jitter=0.25)
    passes = Passes(monkeypatch, kept)
    passes.may_go_on.set()
    running = asyncio.ensure_future(cleanup.run())
    await passes.reached(3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(entropy.asked) == {(-0.25, 0.25)}


async def test_the_timer_skips_its_pass_while_one_is_running(
    cleanup: Cleanup, kept: Keeping, entropy: FakeEntropy, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleanup.policy = replace(POLICY, interval_s=0.0005)
    passes = Passes(monkeypatch, kept)
    on_demand = asyncio.ensure_future(cleanup.once(dry_run=False))
    await passes.reached(1)
    running = asyncio.ensure_future(cleanup.run())
    await asyncio.wait_for(entropy.asked_thrice.wait(), DEADLINE_S)
    assert passes.begun == 1
    passes.may_go_on.set()
    await on_demand
    await passes.reached(2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
