"""What a failure of disk or catalog, or a fence, costs."""

import asyncio
import errno
from dataclasses import replace

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Completion
from daemon.ingest.committer import Committer, CycleSettings
from daemon.ingest.live_upload import Cut
from daemon.tasks import background
from daemon.telemetry.metrics import StorageFailure
from protocol.errors import ErrorCode
from tests.support.catalog_samples import REQUEST
from tests.support.commit_cycles import BROKEN, FULL, Cycles, RecordedCommits
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import NEVER_S


@pytest.mark.parametrize(
    ("error", "code", "counted"),
    [
        (FULL, ErrorCode.DISK_FULL, StorageFailure.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ErrorCode.DISK_FULL, StorageFailure.DISK_FULL),
        (BROKEN, ErrorCode.STORAGE_FAILED, StorageFailure.SYNC),
        (OSError("torn"), ErrorCode.STORAGE_FAILED, StorageFailure.SYNC),
    ],
)
async def test_a_failed_sync_loses_its_upload_and_no_other(
    cycles: Cycles, error: OSError, code: ErrorCode, counted: StorageFailure
) -> None:
    cycles.storage.holds_syncs = True
    bad, good = await cycles.open("bad"), await cycles.open("good")
    cycles.arrive(bad, 10)
    cycles.arrive(good, 10)
    await turns()
    cycles.storage.sync_next(error, bad.id)
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert sorted(cycles.listener.reports) == [("lost", 1), ("progressed", 2)]
    assert [loss[:2] for loss in cycles.listener.losses] == [(1, code)]
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
async def test_a_failed_commit_loses_everything_it_would_have_recorded(
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
    assert cycles.listener.losses == [(1, code, "no commit"), (2, code, "no commit")]
    assert [upload.durable for upload in uploads] == [(), ()]
    assert cycles.metrics.storage_failures[counted] == 2
    assert cycles.committer.pending_bytes == 0


async def test_completions_and_progress_share_a_cycle_and_fail_separately(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    whole, failing, other = [await cycles.open(name) for name in ("whole", "failing", "other")]
    cycles.listener.finishing = {whole.id, failing.id}
    for upload in (failing, whole, other):
        cycles.arrive(upload, 100)
    cycles.catalog.gates["complete"].failures.append(CatalogFailed("no completion"))
    await turns()
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert sorted(cycles.listener.reports) == [("completed", 1), ("lost", 2), ("progressed", 3)]
    assert whole.next_expected_byte == other.next_expected_byte == 100


async def test_a_commit_fenced_by_a_takeover_is_repeated_for_the_new_stream(cycles: Cycles) -> None:
    cycles.storage.holds_syncs = True
    upload = await cycles.open()
    cycles.arrive(upload, 10)
    await turns()
    result = await cycles.catalog.open(replace(REQUEST, upload_id=9, name="file"))
    assert result.upload is not None
    upload.take_over(result.upload)
    cycles.storage.sync_next()
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert (cycles.listener.reports, upload.durable) == ([], ())
    waiting = asyncio.ensure_future(cycles.committer.drained())
    await until(lambda: len(cycles.storage.syncs) == 1)
    cycles.storage.sync_next()
    await waiting
    assert cycles.listener.reports == [("progressed", 1)]
    assert [(cut.epoch, cut.answered_bytes) for cut in cycles.listener.cuts] == [(2, 0)]
    assert await cycles.recorded(upload) == upload.next_expected_byte == 10


async def test_a_commit_fenced_by_another_server_loses_the_upload(cycles: Cycles) -> None:
    upload = await cycles.open()
    await cycles.catalog.open(replace(REQUEST, upload_id=9, name="file"))
    cycles.arrive(upload, 10)
    await until(lambda: cycles.committer.finished_cycles == 1)
    assert [(upload_id, code) for upload_id, code, _ in cycles.listener.losses] == [(1, ErrorCode.FENCED)]
    assert await cycles.recorded(upload) == 0


async def test_a_sync_may_end_after_the_committer(cycles: Cycles) -> None:
    committer = Committer(
        cycles.storage, cycles.catalog, cycles.clock, cycles.metrics, CycleSettings(cycle_bytes=1, cycle_s=NEVER_S)
    )
    cycles.storage.holds_syncs = True
    upload = await cycles.open()
    async with background(committer.run(cycles.listener)):
        committer.arrived(upload, 1)
        await until(lambda: len(cycles.storage.syncs) == 1)
    cycles.storage.sync_next()
    assert cycles.listener.reports == []


async def test_an_unforeseen_failure_ends_the_committer() -> None:
    class Careless(RecordedCommits):
        def completion(self, cut: Cut) -> Completion | None:
            return Completion(cut.upload.id, cut.epoch, 10, 0, None, cut.ranges, 2**63)

    cycles = Cycles()
    upload = await cycles.open()
    cycles.arrive(upload, 10)
    with pytest.raises(ExceptionGroup) as failed:
        await cycles.committer.run(Careless())
    assert failed.group_contains(OverflowError)
