"""What a pass removes, what it keeps, and when it stops. Catalog and files are real."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import CleanupReport, Position, Progress, State, Upload
from daemon.storage.local.layout import SHARDS
from daemon.telemetry.metrics import CleanupOutcome, CleanupResult, Metrics, StorageFailure
from daemon.upkeep import cleanup_pass, orphans
from daemon.upkeep.cleanup import Cleanup
from protocol.constants import UploadState
from tests.support.catalog_samples import REQUEST
from tests.support.cleanup_bench import (
    KEEPING_STALE,
    NOTHING,
    OLD_MS,
    POLICY,
    RETAINING,
    YOUNG_MS,
    LiveUploads,
    orphan,
)
from tests.support.fake_machine import DAY_S, NOW_MS, CapturedLog, FakeClock
from tests.support.populated_store import CONTENT, Keeping

# Stale uploads.


async def test_a_stale_upload_goes_with_its_bytes_and_a_young_one_stays(
    cleanup: Cleanup, kept: Keeping, metrics: Metrics
) -> None:
    await kept.add(1, OLD_MS)
    await kept.add(2, YOUNG_MS)
    report = await cleanup.once(dry_run=False)
    assert report == replace(NOTHING, stale_deleted=1, freed_bytes=len(CONTENT))
    assert await kept.states() == {1: State.EXPIRED, 2: State.RECEIVING}
    assert not kept.path(1).exists()
    assert kept.path(2).read_bytes() == CONTENT
    assert metrics.cleanup_files[CleanupResult.STALE_DELETED] == 1
    assert metrics.cleanup_freed_bytes == len(CONTENT)
    assert metrics.ended[UploadState.EXPIRED] == 1


async def test_a_recent_durable_byte_keeps_an_old_upload(cleanup: Cleanup, kept: Keeping) -> None:
    old = await kept.add(1, OLD_MS)
    await kept.catalog.commit([Progress(old.id, old.epoch, old.ranges, YOUNG_MS)])
    assert await cleanup.once(dry_run=False) == NOTHING


async def test_stale_uploads_may_be_kept_as_partial(cleanup: Cleanup, kept: Keeping, metrics: Metrics) -> None:
    cleanup.policy = KEEPING_STALE
    await kept.add(1, OLD_MS)
    assert await cleanup.once(dry_run=False) == replace(NOTHING, stale_kept=1)
    assert (await kept.get(1)).state is State.PARTIAL
    assert kept.path(1).read_bytes() == CONTENT
    assert metrics.ended[UploadState.EXPIRED] == 0
    assert await cleanup.once(dry_run=False) == NOTHING


async def test_partial_uploads_go_once_stale_uploads_are_deleted(cleanup: Cleanup, kept: Keeping) -> None:
    await kept.add(1, OLD_MS, State.PARTIAL)
    assert (await cleanup.once(dry_run=False)).stale_deleted == 1
    assert await kept.states() == {1: State.EXPIRED}


async def test_an_upload_in_use_is_left_alone_however_old(
    cleanup: Cleanup, kept: Keeping, uploads: LiveUploads
) -> None:
    await kept.add(1, OLD_MS)
    uploads.ids.add(1)
    assert await cleanup.once(dry_run=False) == NOTHING
    assert await kept.states() == {1: State.RECEIVING}
    uploads.ids.clear()
    assert (await cleanup.once(dry_run=False)).stale_deleted == 1


async def test_an_upload_that_is_resumed_during_the_pass_stays(
    cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await kept.add(1, OLD_MS)
    older = kept.catalog.older
    listed: list[Upload] = []

    async def older_then_resumed(
        state: State, before_ms: int, limit: int, after: Position | None = None
    ) -> Sequence[Upload]:
        found = await older(state, before_ms, limit, after)
        listed.extend(found)
        # Once to count it, once to end it.
        if found and listed == [upload, upload]:
            await kept.catalog.open(replace(REQUEST, name=upload.name, size=upload.size, now_ms=NOW_MS))
        return found

    monkeypatch.setattr(kept.catalog, "older", older_then_resumed)
    assert await cleanup.once(dry_run=False) == NOTHING
    resumed = await kept.get(1)
    assert (resumed.state, resumed.epoch) == (State.RECEIVING, upload.epoch + 1)
    assert kept.path(1).read_bytes() == CONTENT


async def test_more_than_a_batch_goes_and_those_in_use_are_passed_over(
    cleanup: Cleanup, kept: Keeping, uploads: LiveUploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup_pass, "BATCH_UPLOADS", 2)
    for upload_id in range(1, 8):
        await kept.add(upload_id, OLD_MS + upload_id)
    uploads.ids |= {1, 2, 4}
    assert (await cleanup.once(dry_run=False)).stale_deleted == 4
    left = {upload_id for upload_id, state in (await kept.states()).items() if state is State.RECEIVING}
    assert left == uploads.ids


# Complete and rejected uploads, tombstones.


async def test_complete_files_stay_for_ever_by_default(cleanup: Cleanup, kept: Keeping) -> None:
    await kept.add(1, NOW_MS - 1000 * DAY_S * 1000, State.COMPLETE)
    assert await cleanup.once(dry_run=False) == NOTHING


async def test_complete_files_expire_by_retention(cleanup: Cleanup, kept: Keeping) -> None:
    cleanup.policy = RETAINING
    await kept.add(1, OLD_MS, State.COMPLETE)
    await kept.add(2, YOUNG_MS, State.COMPLETE)
    report = await cleanup.once(dry_run=False)
    assert report == replace(NOTHING, retention_expired=1, freed_bytes=len(CONTENT))
    assert await kept.states() == {1: State.EXPIRED, 2: State.COMPLETE}
    assert not kept.path(1).exists()


async def test_rejected_uploads_are_kept_for_a_while(cleanup: Cleanup, kept: Keeping) -> None:
    await kept.add(1, NOW_MS - 2 * DAY_S * 1000, State.REJECTED)
    await kept.add(2, NOW_MS - DAY_S * 500, State.REJECTED)
    report = await cleanup.once(dry_run=False)
    assert report == replace(NOTHING, rejected_deleted=1, freed_bytes=len(CONTENT))
    assert await kept.states() == {1: State.EXPIRED, 2: State.REJECTED}


async def test_old_tombstones_are_forgotten(cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup_pass, "BATCH_UPLOADS", 2)
    for upload_id, state in enumerate((State.ABORTED, State.DELETED, State.EXPIRED), start=1):
        await kept.add(upload_id, OLD_MS, state, content=b"")
    await kept.add(4, YOUNG_MS, State.DELETED, content=b"")
    assert (await cleanup.once(dry_run=True)).tombstones_purged == 3
    assert await cleanup.once(dry_run=False) == replace(NOTHING, tombstones_purged=3)
    assert await kept.states() == {4: State.DELETED}


# Dry runs.


async def test_a_dry_run_counts_and_changes_nothing(
    cleanup: Cleanup, kept: Keeping, metrics: Metrics, log: CapturedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "SHARDS_PER_PASS", SHARDS)
    cleanup.policy = RETAINING
    await kept.add(1, OLD_MS)
    await kept.add(2, OLD_MS, State.PARTIAL)
    await kept.add(3, OLD_MS, State.COMPLETE)
    await kept.add(4, OLD_MS, State.REJECTED)
    await kept.add(5, OLD_MS, State.ABORTED, content=b"")
    await kept.add(6, YOUNG_MS)
    path = orphan(kept, "orphan")
    before = await kept.states()
    foreseen = await cleanup.once(dry_run=True)
    assert foreseen == CleanupReport(True, 2, 0, 1, 1, 1, 1, 4 * len(CONTENT), None)
    assert await kept.states() == before
    assert path.exists()
    assert metrics.cleanup_runs.total() == metrics.cleanup_files.total() == 0
    assert log.lines[0]["dry_run"] is True
    # The new tombstones are as old as this moment, so they are not among those purged.
    assert await cleanup.once(dry_run=False) == replace(foreseen, dry_run=False)


async def test_a_dry_run_counts_no_bytes_of_uploads_that_would_be_kept(cleanup: Cleanup, kept: Keeping) -> None:
    cleanup.policy = KEEPING_STALE
    await kept.add(1, OLD_MS)
    assert await cleanup.once(dry_run=True) == replace(NOTHING, dry_run=True, stale_kept=1)


# Safeguards.


async def test_a_pass_that_would_remove_too_much_removes_nothing(
    cleanup: Cleanup, kept: Keeping, metrics: Metrics, clock: FakeClock
) -> None:
    for upload_id in range(1, 12):
        await kept.add(upload_id, OLD_MS)
    for upload_id in range(12, 22):
        await kept.add(upload_id, YOUNG_MS)
    report = await cleanup.once(dry_run=False)
    assert str(report.stopped).startswith("11 of 21 uploads that hold bytes would be removed; cleanup.max_fraction = 0")
    assert replace(report, stopped=None) == NOTHING
    assert metrics.cleanup_runs[CleanupOutcome.STOPPED] == 1
    assert set((await kept.states()).values()) == {State.RECEIVING}
    foreseen = await cleanup.once(dry_run=True)
    assert (foreseen.stale_deleted, foreseen.stopped) == (11, report.stopped)
    cleanup.policy = replace(POLICY, max_fraction=0.53)
    assert (await cleanup.once(dry_run=False)).stale_deleted == 11


async def test_any_number_may_be_kept_as_partial(cleanup: Cleanup, kept: Keeping) -> None:
    cleanup.policy = KEEPING_STALE
    for upload_id in range(1, 20):
        await kept.add(upload_id, OLD_MS)
    assert (await cleanup.once(dry_run=False)).stale_kept == 19


async def test_a_few_may_always_go(cleanup: Cleanup, kept: Keeping) -> None:
    for upload_id in range(1, 11):
        await kept.add(upload_id, OLD_MS)
    assert (await cleanup.once(dry_run=False)).stale_deleted == 10


# Failures.


async def test_bytes_that_cannot_be_deleted_fail_the_pass_after_the_others_of_the_batch(
    cleanup: Cleanup, kept: Keeping, metrics: Metrics, log: CapturedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for upload_id in (1, 2, 3):
        await kept.add(upload_id, OLD_MS)
    remove = kept.storage.contents.remove

    async def failing(upload_id: int) -> int:
        if upload_id == 2:
            raise OSError(5, "Input/output error")
        return await remove(upload_id)

    monkeypatch.setattr(kept.storage.contents, "remove", failing)
    report = await cleanup.once(dry_run=False)
    assert report.stopped == "failed: [Errno 5] Input/output error"
    assert (report.stale_deleted, report.freed_bytes) == (3, 2 * len(CONTENT))
    assert [upload_id for upload_id in (1, 2, 3) if kept.path(upload_id).exists()] == [2]
    assert metrics.storage_failures[StorageFailure.DELETE] == 1
    assert metrics.cleanup_runs[CleanupOutcome.FAILED] == 1
    assert log.at("error") == ["cleanup failed"]


async def test_a_catalog_that_fails_ends_the_pass_with_what_it_has_done(
    cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.add(1, OLD_MS)
    await kept.add(2, OLD_MS + 1)
    end = kept.catalog.end

    async def failing(upload_id: int, state: State, now_ms: int, epoch: int | None = None) -> Upload | None:
        if upload_id == 2:
            raise CatalogFailed("no room", disk_full=True)
        return await end(upload_id, state, now_ms, epoch)

    monkeypatch.setattr(kept.catalog, "end", failing)
    report = await cleanup.once(dry_run=False)
    assert report == replace(NOTHING, stale_deleted=1, freed_bytes=len(CONTENT), stopped="failed: no room")
    assert kept.path(2).exists()
