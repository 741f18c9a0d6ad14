"""Which stored files a pass takes for orphans, and when it quarantines them. Catalog and files are real."""

import os
from collections.abc import Collection
from dataclasses import replace

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import CleanupReport, State
from daemon.storage.interface import Stored
from daemon.storage.local.layout import SHARDS
from daemon.upkeep import orphans
from daemon.upkeep.cleanup import Cleanup
from tests.support.cleanup_bench import NOTHING, OLD_MS, POLICY, SHARD, YOUNG_MS, LiveUploads, orphan
from tests.support.fake_machine import DAY_S
from tests.support.populated_store import CONTENT, Keeping


async def whole(cleanup: Cleanup) -> CleanupReport:
    """Run the passes that search all of storage. Returns the report of the last; the others must do nothing."""
    for _ in range(SHARDS // orphans.SHARDS_PER_PASS - 1):
        assert await cleanup.once(dry_run=False) == NOTHING
    return await cleanup.once(dry_run=False)


def quarantined(kept: Keeping) -> list[str]:
    return sorted(path.name for path in (kept.root / "quarantine").rglob("*") if path.is_file())


async def test_a_file_of_no_upload_is_quarantined_and_not_deleted(cleanup: Cleanup, kept: Keeping) -> None:
    await kept.add(SHARD, YOUNG_MS)
    os.utime(kept.path(SHARD), (OLD_MS / 1000, OLD_MS / 1000))
    cleanup.policy = replace(POLICY, max_fraction=0.7)
    gone = [orphan(kept, f"{0x301:016x}"), orphan(kept, "core.4711")]
    report = await whole(cleanup)
    assert report == replace(NOTHING, orphans_quarantined=2)
    assert not any(path.exists() for path in gone)
    assert quarantined(kept) == [f"{0x301:016x}", "core.4711"]
    assert kept.path(SHARD).read_bytes() == CONTENT


async def test_young_orphans_and_those_in_use_are_left_alone(
    cleanup: Cleanup, kept: Keeping, uploads: LiveUploads
) -> None:
    uploads.ids.add(0x201)
    paths = [orphan(kept, "young", age_s=DAY_S / 2), orphan(kept, f"{0x201:016x}")]
    assert await whole(cleanup) == NOTHING
    assert all(path.exists() for path in paths)


async def test_the_file_of_a_tombstone_is_an_orphan(cleanup: Cleanup, kept: Keeping) -> None:
    await kept.add(SHARD, YOUNG_MS, State.DELETED)
    os.utime(kept.path(SHARD), (OLD_MS / 1000, OLD_MS / 1000))
    cleanup.policy = replace(POLICY, max_fraction=1)
    assert (await whole(cleanup)).orphans_quarantined == 1


async def test_an_orphan_that_is_deleted_meanwhile_is_not_counted(
    cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stored(shard: int) -> tuple[Stored, ...]:
        return (Stored("seen a moment ago", None),)

    async def modified_ms(*_: object) -> int:
        return OLD_MS

    cleanup.policy = replace(POLICY, max_fraction=1)
    monkeypatch.setattr(kept.storage.inventory, "stored", stored)
    assert await whole(cleanup) == NOTHING
    monkeypatch.setattr(kept.storage.inventory, "modified_ms", modified_ms)
    assert await whole(cleanup) == NOTHING


async def test_a_few_shards_are_searched_in_each_pass_and_the_last_pass_quarantines(
    cleanup: Cleanup, kept: Keeping
) -> None:
    for shard in range(SHARDS):
        orphan(kept, f"orphan-{shard}", shard=shard)
    cleanup.policy = replace(POLICY, max_fraction=1)
    for _ in range(SHARDS // orphans.SHARDS_PER_PASS - 1):
        assert await cleanup.once(dry_run=False) == NOTHING
    assert (await cleanup.once(dry_run=True)).orphans_quarantined == SHARDS
    assert quarantined(kept) == []
    assert (await cleanup.once(dry_run=False)).orphans_quarantined == SHARDS
    assert len(quarantined(kept)) == SHARDS
    assert await whole(cleanup) == NOTHING


async def test_a_shard_with_many_files_is_searched_in_several_passes(
    cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "FILES_PER_PASS", 2)
    cleanup.policy = replace(POLICY, max_fraction=1)
    orphan(kept, "earlier", shard=SHARD - 1)
    for number in range(4):
        orphan(kept, f"orphan-{number}")
    for _ in range(2):
        assert await cleanup.once(dry_run=False) == NOTHING
    assert (await whole(cleanup)).orphans_quarantined == 5


async def test_very_many_files_are_judged_in_samples(
    cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "SAMPLE_FILES", 3)
    cleanup.policy = replace(POLICY, max_fraction=1)
    for number in range(7):
        orphan(kept, f"orphan-{number}")
    assert [(await cleanup.once(dry_run=False)).orphans_quarantined for _ in range(2)] == [3, 3]
    assert (await whole(cleanup)).orphans_quarantined == 1


async def test_the_search_continues_after_a_sample_that_looks_wrong(
    cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "SAMPLE_FILES", 3)
    for number in range(3):
        orphan(kept, f"orphan-{number}")
    orphan(kept, "later", shard=orphans.SHARDS_PER_PASS)
    for upload_id in (orphans.SHARDS_PER_PASS, orphans.SHARDS_PER_PASS + SHARDS):
        await kept.add(upload_id, YOUNG_MS)
    assert (await cleanup.once(dry_run=False)).stopped is not None
    assert (await cleanup.once(dry_run=False)).orphans_quarantined == 1


async def test_a_failed_search_is_tried_again(cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    cleanup.policy = replace(POLICY, max_fraction=1)
    orphan(kept, "orphan")
    existing = kept.catalog.existing

    async def failing(upload_ids: Collection[int]) -> frozenset[int]:
        monkeypatch.setattr(kept.catalog, "existing", existing)
        raise CatalogFailed("no answer")

    monkeypatch.setattr(kept.catalog, "existing", failing)
    assert (await cleanup.once(dry_run=False)).stopped == "failed: no answer"
    assert (await whole(cleanup)).orphans_quarantined == 1


async def test_if_most_files_are_orphans_none_is_quarantined(cleanup: Cleanup, kept: Keeping) -> None:
    """With an empty catalog, as few as they are in each pass."""
    for number in range(100):
        orphan(kept, f"orphan-{number}", shard=number)
    report = await whole(cleanup)
    assert report.orphans_quarantined == 0
    assert str(report.stopped).startswith("100 of 100 stored files belong to no upload; is this the right catalog?")
    assert quarantined(kept) == []


async def test_an_only_file_that_the_catalog_does_not_know_is_not_quarantined(cleanup: Cleanup, kept: Keeping) -> None:
    orphan(kept, "orphan")
    assert str((await whole(cleanup)).stopped).startswith("1 of 1 stored files belong to no upload")
    assert quarantined(kept) == []
