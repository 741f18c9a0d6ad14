"""Cycles in the metrics."""

import pytest

from daemon.catalog.interface import CatalogFailed
from tests.support.commit_cycles import BROKEN, Cycles
from tests.support.loop_turns import turns, until


async def test_the_start_of_the_oldest_cycle_is_known_while_one_is_under_way(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    assert cycles.committer.oldest_cycle_s is None
    upload = await cycles.open()
    cycles.arrive(upload, 10)
    await turns()
    began_s = cycles.clock.now_s
    cycles.clock.pass_s(5)
    assert cycles.committer.oldest_cycle_s == began_s
    cycles.catalog.gates["commit"].before.clear()
    cycles.storage.sync_next()
    cycles.arrive(upload, 10)
    await until(lambda: len(cycles.storage.syncs) == 1)
    assert cycles.committer.oldest_cycle_s == began_s
    cycles.catalog.gates["commit"].before.set()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert cycles.committer.oldest_cycle_s == cycles.clock.now_s, "the later one is measured from here on"
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 2)
    assert cycles.committer.oldest_cycle_s is None


async def test_a_cycle_is_counted_with_its_time_and_bytes(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    upload = await cycles.open()
    cycles.arrive(upload, 10)
    await turns()
    cycles.clock.pass_s(2)
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 1)
    metrics = cycles.metrics
    assert (metrics.cycle_duration.count, metrics.cycle_duration.total) == (1, 2.0)
    assert (metrics.cycle_bytes.total, metrics.cycle_uploads.total) == (10, 1)
    assert (metrics.ack_latency.count, metrics.ack_latency.total) == (1, 2.0)


@pytest.mark.parametrize("failing", ["sync", "commit", "nothing"])
async def test_failed_bytes_do_not_count_as_durable(cycles: Cycles, failing: str) -> None:
    cycles.storage.holds_syncs = True
    if failing == "commit":
        cycles.catalog.gates["commit"].failures.append(CatalogFailed("no commit"))
    one, other = await cycles.open("one"), await cycles.open("other")
    cycles.arrive(one, 10)
    cycles.arrive(other, 7)
    await turns()
    cycles.storage.sync_next(BROKEN if failing == "sync" else None, one.id)
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert cycles.metrics.cycle_bytes.count == 1
    assert cycles.metrics.cycle_bytes.total == {"sync": 7, "commit": 0, "nothing": 17}[failing]
    assert cycles.committer.pending_bytes == 0


async def test_only_bytes_that_became_durable_have_a_latency(cycles: Cycles) -> None:
    cycles.catalog.gates["commit"].failures.append(CatalogFailed("no commit"))
    lost, asking = await cycles.open(), await cycles.open("other")
    cycles.arrive(lost, 10)
    await until(lambda: cycles.committer.finished_cycles == 1)
    cycles.committer.touch(asking, urgent=True)
    await until(lambda: cycles.committer.finished_cycles == 2)
    assert cycles.listener.reports == [("lost", 1), ("progressed", 2)]
    assert cycles.metrics.ack_latency.count == 0
