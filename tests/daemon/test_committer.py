"""Cycles: when they are cut, what they promise, in which order, and what a failure of disk or catalog costs."""

import asyncio
import errno
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Completed, Completion
from daemon.committer import TURN_CUTS, Committer, CycleSettings
from daemon.metrics import StorageFailure
from daemon.tasks import background
from daemon.upload import Cut, LiveUpload
from protocol.errors import ErrorCode
from tests.daemon.bench import NEVER_S, Bench
from tests.daemon.catalog.samples import REQUEST
from tests.daemon.turns import turns, until

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")
DEADLINE_S = 10


class Owner:
    """Writes down what it is told; uploads whose ids are in `finishing` are completed once all bytes are there."""

    def __init__(self) -> None:
        self.finishing: set[int] = set()
        self.told: list[tuple[str, int]] = []
        self.cuts: list[Cut] = []
        self.losses: list[tuple[int, ErrorCode, str]] = []
        self.changed = asyncio.Event()

    def completion(self, cut: Cut) -> Completion | None:
        upload = cut.upload
        if upload.id not in self.finishing:
            return None
        return Completion(upload.id, cut.epoch, upload.received.total_bytes, 0, None, cut.ranges, 2_000)

    def progressed(self, cut: Cut) -> None:
        self.told.append(("progressed", cut.upload.id))
        self.changed.set()
        self.cuts.append(cut)

    def completed(self, cut: Cut, completed: Completed) -> None:
        assert completed.upload.id == cut.upload.id
        self.told.append(("completed", cut.upload.id))

    def lost(self, upload: LiveUpload, code: ErrorCode, detail: str) -> None:
        if not upload.is_over:
            upload.is_over = True
            self.told.append(("lost", upload.id))
            self.losses.append((upload.id, code, detail))


async def waited(owner: Owner, count: int) -> None:
    """Return once so much was told."""
    while len(owner.told) < count:
        await owner.changed.wait()
        owner.changed.clear()


class Cycles:
    """A committer with uploads that the test feeds by itself."""

    def __init__(self, cycle_bytes: int = 1, cycle_s: float = NEVER_S) -> None:
        self.bench = Bench(cycle_bytes=cycle_bytes, cycle_s=cycle_s)
        self.storage = self.bench.storage
        self.catalog = self.bench.catalog
        self.metrics = self.bench.metrics
        self.clock = self.bench.clock
        self.committer: Committer = self.bench.committer
        self.owner = Owner()

    async def open(self, name: str = "file") -> LiveUpload:
        upload_id = 1 + self.catalog.gates["open"].asked
        result = await self.catalog.open(replace(REQUEST, upload_id=upload_id, name=name))
        assert result.upload is not None
        return LiveUpload(result.upload)

    def arrive(self, upload: LiveUpload, count: int) -> None:
        """The next bytes of an upload."""
        start = upload.received.highest_byte
        pieces = upload.take_in(start, [bytes(count)], upload.received.missing(start, start + count))
        for piece in pieces:
            self.storage.write(upload.id, piece.offset, piece.data, upload.next_expected_byte, lambda _: None)
        self.committer.arrived(upload, count)

    async def recorded(self, upload: LiveUpload) -> int:
        found = await self.catalog.get(upload.id)
        assert found is not None
        return found.next_expected_byte


@pytest.fixture
async def cycles() -> AsyncIterator[Cycles]:
    made = Cycles()
    async with background(made.committer.run(made.owner)):
        yield made


async def test_a_cycle_is_told_once_it_is_synced_and_recorded(cycles: Cycles) -> None:
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
    assert (cycles.owner.told, upload.durable) == ([], ())
    assert cycles.committer.pending_bytes == 10
    cycles.catalog.gates["commit"].after.set()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert cycles.owner.told == [("progressed", 1)]
    assert upload.next_expected_byte == await cycles.recorded(upload) == 10
    assert cycles.committer.pending_bytes == 0


async def test_a_cycle_of_many_uploads_lets_others_in_between() -> None:
    cycles = Cycles(cycle_bytes=10 * TURN_CUTS)
    told_by_turn = []
    async with background(cycles.committer.run(cycles.owner)):
        for upload in [await cycles.open(f"{number}") for number in range(10 * TURN_CUTS)]:
            cycles.arrive(upload, 1)
        while len(cycles.owner.told) < 10 * TURN_CUTS:
            await asyncio.sleep(0)
            told_by_turn.append(len(cycles.owner.told))
    assert max(after - before for before, after in pairwise([0, *told_by_turn])) == TURN_CUTS


async def test_a_cycle_is_cut_by_bytes() -> None:
    cycles = Cycles(cycle_bytes=100)
    async with background(cycles.committer.run(cycles.owner)):
        one, other = await cycles.open("one"), await cycles.open("other")
        cycles.arrive(one, 60)
        cycles.arrive(other, 39)
        await turns()
        assert cycles.owner.told == []
        cycles.arrive(one, 1)
        await until(lambda: cycles.committer.finished_cycles == 1)
        assert cycles.owner.told == [("progressed", 1), ("progressed", 2)]
        assert [cut.settled_bytes for cut in cycles.owner.cuts] == [61, 39]
        assert cycles.catalog.gates["commit"].asked == 1, "one transaction records all"
        cycles.arrive(one, 99)
        await turns()
        assert cycles.committer.finished_cycles == 1, "the count begins anew with each cycle"


async def test_a_cycle_is_cut_by_time_counted_from_its_first_bytes() -> None:
    cycles = Cycles(cycle_bytes=1_000_000, cycle_s=0.001)
    async with background(cycles.committer.run(cycles.owner)):
        for count in (1, 2):
            upload = await cycles.open(f"file-{count}")
            cycles.arrive(upload, 10)
            await asyncio.wait_for(waited(cycles.owner, count), DEADLINE_S)
        assert cycles.owner.told == [("progressed", 1), ("progressed", 2)]


async def test_the_next_cycle_is_synced_while_one_is_recorded_and_told_after_it(cycles: Cycles) -> None:
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
    assert cycles.owner.told == []
    cycles.arrive(upload, 10)
    await turns()
    assert not cycles.storage.syncs, "the disk is never more than two cycles ahead of the catalog"
    commit.before.set()
    await until(lambda: len(cycles.storage.syncs) == 1)
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 4)
    assert [cut.ranges[0].end for cut in cycles.owner.cuts] == [10, 20, 30, 40]


async def test_what_comes_during_a_sync_waits_for_the_next_cycle(cycles: Cycles) -> None:
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


@pytest.mark.parametrize(
    ("error", "code", "counted"),
    [
        (FULL, ErrorCode.DISK_FULL, StorageFailure.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ErrorCode.DISK_FULL, StorageFailure.DISK_FULL),
        (BROKEN, ErrorCode.STORAGE_FAILED, StorageFailure.SYNC),
        (OSError("torn"), ErrorCode.STORAGE_FAILED, StorageFailure.SYNC),
    ],
)
async def test_a_sync_that_fails_loses_its_upload_and_no_other(
    cycles: Cycles, error: OSError, code: ErrorCode, counted: StorageFailure
) -> None:
    cycles.storage.holds_syncs = True
    bad, good = await cycles.open("bad"), await cycles.open("good")
    cycles.arrive(bad, 10)
    cycles.arrive(good, 10)
    await turns()
    cycles.storage.sync_next(error, bad.id)
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert sorted(cycles.owner.told) == [("lost", 1), ("progressed", 2)]
    assert [(upload_id, told) for upload_id, told, _ in cycles.owner.losses] == [(1, code)]
    assert (await cycles.recorded(bad), await cycles.recorded(good)) == (0, 10)
    assert bad.durable == ()
    assert cycles.metrics.storage_failures[counted] == 1
    assert cycles.committer.pending_bytes == 0


@pytest.mark.parametrize(
    ("disk_full", "code", "counted"),
    [
        (True, ErrorCode.DISK_FULL, StorageFailure.DISK_FULL),
        (False, ErrorCode.STORAGE_FAILED, StorageFailure.CATALOG),
    ],
)
async def test_a_commit_that_fails_loses_all_that_it_would_have_recorded(
    cycles: Cycles, disk_full: bool, code: ErrorCode, counted: StorageFailure
) -> None:
    cycles.storage.holds_syncs = True
    uploads = [await cycles.open("one"), await cycles.open("other")]
    for upload in uploads:
        cycles.arrive(upload, 10)
    cycles.catalog.gates["commit"].failures.append(CatalogFailed("no commit", disk_full=disk_full))
    await turns()
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert cycles.owner.losses == [(1, code, "no commit"), (2, code, "no commit")]
    assert [upload.durable for upload in uploads] == [(), ()]
    assert cycles.metrics.storage_failures[counted] == 2
    assert cycles.committer.pending_bytes == 0


async def test_completion_and_progress_are_one_cycle_and_fail_each_for_itself(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    whole, failing, other = [await cycles.open(name) for name in ("whole", "failing", "other")]
    cycles.owner.finishing = {whole.id, failing.id}
    for upload in (failing, whole, other):
        cycles.arrive(upload, 100)
    cycles.catalog.gates["complete"].failures.append(CatalogFailed("no completion"))
    await turns()
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert sorted(cycles.owner.told) == [("completed", 1), ("lost", 2), ("progressed", 3)]
    assert whole.next_expected_byte == other.next_expected_byte == 100


async def test_a_commit_that_is_fenced_by_a_takeover_is_made_again_for_the_later_stream(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    upload = await cycles.open()
    cycles.arrive(upload, 10)
    await turns()
    result = await cycles.catalog.open(replace(REQUEST, upload_id=9, name="file"))
    assert result.upload is not None
    upload.take_over(result.upload)
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert (cycles.owner.told, upload.durable) == ([], ())
    waiting = asyncio.ensure_future(cycles.committer.drained())
    await until(lambda: len(cycles.storage.syncs) == 1)
    cycles.storage.sync_next()
    await waiting
    assert cycles.owner.told == [("progressed", 1)]
    assert [(cut.epoch, cut.settled_bytes) for cut in cycles.owner.cuts] == [(2, 0)]
    assert await cycles.recorded(upload) == upload.next_expected_byte == 10


async def test_a_commit_that_is_fenced_by_somebody_else_is_told_so(cycles: Cycles) -> None:
    upload = await cycles.open()
    await cycles.catalog.open(replace(REQUEST, upload_id=9, name="file"))
    cycles.arrive(upload, 10)
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert [(upload_id, code) for upload_id, code, _ in cycles.owner.losses] == [(1, ErrorCode.FENCED)]
    assert await cycles.recorded(upload) == 0


async def test_uploads_that_are_over_take_no_part_and_their_bytes_are_pending_no_more(cycles: Cycles) -> None:
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
    assert cycles.owner.told == []
    assert cycles.committer.pending_bytes == 0


async def test_drained_waits_for_all_cycles_and_hurries_them() -> None:
    cycles = Cycles(cycle_bytes=1_000_000)
    cycles.storage.holds_syncs = True
    async with background(cycles.committer.run(cycles.owner)):
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


async def test_the_oldest_cycle_under_way_is_known_and_so_is_that_there_is_none(cycles: Cycles) -> None:
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


async def test_what_a_cycle_took_is_counted(cycles: Cycles) -> None:
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
async def test_what_failed_is_not_counted_as_made_durable(cycles: Cycles, failing: str) -> None:
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
    assert cycles.owner.told == [("lost", 1), ("progressed", 2)]
    assert cycles.metrics.ack_latency.count == 0


async def test_a_sync_that_ends_after_the_cycles_do_harms_nobody(cycles: Cycles) -> None:
    committer = Committer(
        cycles.storage, cycles.catalog, cycles.clock, cycles.metrics, CycleSettings(cycle_bytes=1, cycle_s=NEVER_S)
    )
    cycles.storage.holds_syncs = True
    upload = await cycles.open()
    async with background(committer.run(cycles.owner)):
        committer.arrived(upload, 1)
        await until(lambda: len(cycles.storage.syncs) == 1)
    cycles.storage.sync_next()
    assert cycles.owner.told == []


async def test_a_failure_that_nobody_foresaw_ends_the_cycles() -> None:
    class Careless(Owner):
        def completion(self, cut: Cut) -> Completion | None:
            return Completion(cut.upload.id, cut.epoch, 10, 0, None, cut.ranges, 2**63)

    cycles = Cycles()
    upload = await cycles.open()
    cycles.arrive(upload, 10)
    with pytest.raises(ExceptionGroup) as failed:
        await cycles.committer.run(Careless())
    assert failed.group_contains(OverflowError)
