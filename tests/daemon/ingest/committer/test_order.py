"""When cycles are cut, what they promise, and in which order."""

import asyncio
from dataclasses import replace
from itertools import pairwise

from daemon.ingest.committer import DEVICE_UPLOADS_MAX, TURN_CUTS
from daemon.tasks import background
from tests.support.catalog_samples import REQUEST
from tests.support.commit_cycles import Cycles, waited
from tests.support.deadlines import DEADLINE_S
from tests.support.loop_turns import turns, until


async def test_a_cycle_is_reported_once_it_is_synced_and_recorded(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    cycles.catalog.gates["commit"].after.clear()
    upload = await cycles.open()
    cycles.arrive(upload, 10)
    await turns()
    assert (len(cycles.storage.syncs), cycles.catalog.gates["commit"].asked) == (1, 0)
    assert upload.durable == ()
    cycles.storage.sync_next()
    await turns()
    assert cycles.catalog.gates["commit"].asked == 1
    assert (cycles.listener.reports, upload.durable) == ([], ())
    assert cycles.committer.pending_bytes == 10
    cycles.catalog.gates["commit"].after.set()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert cycles.listener.reports == [("progressed", 1)]
    assert upload.next_expected_byte == await cycles.recorded(upload) == 10
    assert cycles.committer.pending_bytes == 0


async def test_a_cycle_of_many_uploads_gives_way_to_other_tasks() -> None:
    cycles = Cycles(cycle_bytes=10 * TURN_CUTS)
    reports_by_turn = []
    async with background(cycles.committer.run(cycles.listener)):
        for upload in [await cycles.open(device=f"{number}") for number in range(10 * TURN_CUTS)]:
            cycles.arrive(upload, 1)
        while len(cycles.listener.reports) < 10 * TURN_CUTS:
            await asyncio.sleep(0)
            reports_by_turn.append(len(cycles.listener.reports))
    assert max(after - before for before, after in pairwise([0, *reports_by_turn])) == TURN_CUTS


async def test_a_device_with_many_uploads_has_a_part_of_a_cycle_and_gets_the_next_at_once() -> None:
    cycles = Cycles(cycle_bytes=2 * DEVICE_UPLOADS_MAX + 2)
    async with background(cycles.committer.run(cycles.listener)):
        greedy = [await cycles.open(f"{number}", device="greedy") for number in range(2 * DEVICE_UPLOADS_MAX + 1)]
        for upload in [*greedy, modest := await cycles.open(device="modest")]:
            cycles.arrive(upload, 1)
        await until(lambda: cycles.committer.finished_cycles == 1)
        assert {cut.upload.id for cut in cycles.listener.cuts} == {
            *(upload.id for upload in greedy[:DEVICE_UPLOADS_MAX]),
            modest.id,
        }
        assert cycles.committer.pending_bytes == DEVICE_UPLOADS_MAX + 1
        await asyncio.wait_for(cycles.committer.drained(), DEADLINE_S)
        assert cycles.committer.finished_cycles == 3
        assert cycles.committer.pending_bytes == 0
        assert all(upload.next_expected_byte == 1 for upload in greedy)


async def test_a_cycle_is_cut_by_bytes() -> None:
    cycles = Cycles(cycle_bytes=100)
    async with background(cycles.committer.run(cycles.listener)):
        one, other = await cycles.open("one"), await cycles.open("other")
        cycles.arrive(one, 60)
        cycles.arrive(other, 39)
        await turns()
        assert cycles.listener.reports == []
        cycles.arrive(one, 1)
        await until(lambda: cycles.committer.finished_cycles == 1)
        assert cycles.listener.reports == [("progressed", 1), ("progressed", 2)]
        assert [cut.answered_bytes for cut in cycles.listener.cuts] == [61, 39]
        assert cycles.catalog.gates["commit"].asked == 1, "one transaction records all"
        cycles.arrive(one, 99)
        await turns()
        assert cycles.committer.finished_cycles == 1, "the count starts again with each cycle"


async def test_a_cycle_is_cut_by_time_counted_from_its_first_bytes() -> None:
    cycles = Cycles(cycle_bytes=1_000_000, cycle_s=0.001)
    async with background(cycles.committer.run(cycles.listener)):
        for count in (1, 2):
            upload = await cycles.open(f"file-{count}")
            cycles.arrive(upload, 10)
            await asyncio.wait_for(waited(cycles.listener, count), DEADLINE_S)
        assert cycles.listener.reports == [("progressed", 1), ("progressed", 2)]


async def test_the_next_cycle_is_synced_while_one_is_recorded_and_reported_after_it(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    commit = cycles.catalog.gates["commit"]
    commit.before.clear()
    upload = await cycles.open()
    for expected_asked in (1, 1, 1):
        cycles.arrive(upload, 10)
        await until(lambda: len(cycles.storage.syncs) == 1)
        cycles.storage.sync_next()
        await turns()
        assert commit.asked == expected_asked, "transactions come one after the other"
    assert cycles.storage.holds(1, 0, 30)
    assert cycles.listener.reports == []
    cycles.arrive(upload, 10)
    await turns()
    assert not cycles.storage.syncs, "the disk is never more than two cycles ahead of the catalog"
    commit.before.set()
    await until(lambda: len(cycles.storage.syncs) == 1)
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 4)
    assert [cut.ranges[0].end for cut in cycles.listener.cuts] == [10, 20, 30, 40]


async def test_bytes_that_arrive_during_a_sync_wait_for_the_next_cycle(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    upload = await cycles.open()
    cycles.arrive(upload, 10)
    await turns()
    cycles.arrive(upload, 5)
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert (upload.next_expected_byte, cycles.committer.pending_bytes) == (10, 5)
    await until(lambda: len(cycles.storage.syncs) == 1)
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 2)
    assert (upload.next_expected_byte, cycles.committer.pending_bytes) == (15, 0)


async def test_uploads_that_are_over_take_no_part_and_their_bytes_are_no_longer_pending(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    commit = cycles.catalog.gates["commit"]
    before, during, fenced = [await cycles.open(name) for name in ("before", "during", "fenced")]
    cycles.arrive(before, 10)
    before.is_over = True
    await until(lambda: cycles.committer.pending_bytes == 0)
    assert not cycles.storage.syncs

    cycles.arrive(during, 10)
    await turns()
    during.is_over = True
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert commit.asked == 0

    commit.before.clear()
    cycles.arrive(fenced, 10)
    await turns()
    cycles.storage.sync_next()
    await until(lambda: commit.asked == 1)
    await cycles.catalog.open(replace(REQUEST, upload_id=9, name="fenced"))
    fenced.is_over = True
    commit.before.set()
    await until(lambda: cycles.committer.finished_cycles == 2)
    assert cycles.listener.reports == []
    assert cycles.committer.pending_bytes == 0


async def test_drained_waits_for_all_cycles_and_hurries_them() -> None:
    cycles = Cycles(cycle_bytes=1_000_000)
    cycles.storage.holds_syncs = True
    async with background(cycles.committer.run(cycles.listener)):
        await cycles.committer.drained()
        upload = await cycles.open()
        cycles.arrive(upload, 10)
        drained = asyncio.ensure_future(cycles.committer.drained())
        await until(lambda: len(cycles.storage.syncs) == 1)
        cycles.arrive(upload, 10)
        cycles.storage.sync_next()
        await until(lambda: cycles.committer.finished_cycles == 1)
        await turns()
        assert not drained.done()
        last = asyncio.ensure_future(cycles.committer.drained())
        await until(lambda: len(cycles.storage.syncs) == 1)
        cycles.storage.sync_next()
        await asyncio.gather(drained, last)
        assert upload.next_expected_byte == 20
