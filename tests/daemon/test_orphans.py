"""Orphans: what of the stored bytes belongs to nobody, found by passes of cleanup. Catalog and files are real."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import orphans
from daemon.catalog.records import State
from daemon.cleanup import Cleanup
from daemon.metrics import Metrics
from daemon.storage.interface import Stored
from tests.daemon.cleaning import NOTHING, OLD_MS, POLICY, SHARD, YOUNG_MS, LiveUploads, cleanup_of, orphan
from tests.daemon.doubles import DAY_S, NOW_MS, CapturedLog, FakeClock, FakeEntropy
from tests.daemon.keeping import CONTENT, Keeping, keep


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keep(tmp_path) as opened:
        yield opened


@pytest.fixture
def uploads() -> LiveUploads:
    return LiveUploads()


@pytest.fixture
def cleanup(kept: Keeping, uploads: LiveUploads) -> Cleanup:
    metrics = Metrics(NOW_MS)
    return cleanup_of(kept, uploads, metrics, clock=FakeClock(), entropy=FakeEntropy(), log=CapturedLog())


def quarantined(kept: Keeping) -> list[str]:
    return sorted(path.name for path in (kept.root / "quarantine").rglob("*") if path.is_file())


async def test_what_belongs_to_no_upload_is_put_aside_and_not_deleted(cleanup: Cleanup, kept: Keeping) -> None:
    await kept.add(SHARD, YOUNG_MS)
    os.utime(kept.path(SHARD), (OLD_MS / 1000, OLD_MS / 1000))
    gone = [orphan(kept, f"{0x301:016x}"), orphan(kept, "core.4711")]
    report = await cleanup.once(dry_run=False)
    assert report == replace(NOTHING, orphans_quarantined=2)
    assert not any(path.exists() for path in gone)
    assert quarantined(kept) == [f"{0x301:016x}", "core.4711"]
    assert kept.path(SHARD).read_bytes() == CONTENT


async def test_young_orphans_and_those_in_use_are_left_alone(
    cleanup: Cleanup, kept: Keeping, uploads: LiveUploads
) -> None:
    uploads.ids.add(0x201)
    paths = [orphan(kept, "young", age_s=DAY_S / 2), orphan(kept, f"{0x201:016x}")]
    assert await cleanup.once(dry_run=False) == NOTHING
    assert all(path.exists() for path in paths)


async def test_the_bytes_of_a_tombstone_belong_to_nobody(cleanup: Cleanup, kept: Keeping) -> None:
    await kept.add(SHARD, YOUNG_MS, State.DELETED)
    os.utime(kept.path(SHARD), (OLD_MS / 1000, OLD_MS / 1000))
    assert (await cleanup.once(dry_run=False)).orphans_quarantined == 1


async def test_an_orphan_that_is_deleted_meanwhile_is_none(
    cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stored(shard: int) -> tuple[Stored, ...]:
        return (Stored("seen a moment ago", None),)

    async def modified_ms(*_: object) -> int:
        return OLD_MS

    monkeypatch.setattr(kept.storage, "stored", stored)
    assert await cleanup.once(dry_run=False) == NOTHING
    monkeypatch.setattr(kept.storage, "modified_ms", modified_ms)
    assert await cleanup.once(dry_run=False) == NOTHING


async def test_all_of_storage_is_searched_a_few_parts_at_a_time(cleanup: Cleanup, kept: Keeping) -> None:
    for shard in range(256):
        orphan(kept, f"orphan-{shard}", shard=shard)
    cleanup.policy = replace(POLICY, max_fraction=1)
    per_pass = orphans.SHARDS_PER_PASS
    for _ in range(256 // per_pass):
        assert (await cleanup.once(dry_run=True)).orphans_quarantined == per_pass
        assert (await cleanup.once(dry_run=False)).orphans_quarantined == per_pass
    assert len(quarantined(kept)) == 256
    assert await cleanup.once(dry_run=False) == NOTHING


async def test_a_part_with_many_files_is_searched_in_several_passes(
    cleanup: Cleanup, kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "SEARCHED_PER_PASS", 2)
    cleanup.policy = replace(POLICY, max_fraction=1)
    orphan(kept, "earlier", shard=SHARD - 1)
    for number in range(4):
        orphan(kept, f"orphan-{number}")
    assert [(await cleanup.once(dry_run=False)).orphans_quarantined for _ in range(3)] == [2, 2, 1]


async def test_the_search_goes_on_behind_a_part_whose_catalog_seems_wrong(cleanup: Cleanup, kept: Keeping) -> None:
    for number in range(11):
        orphan(kept, f"orphan-{number}")
    orphan(kept, "later", shard=orphans.SHARDS_PER_PASS)
    assert (await cleanup.once(dry_run=False)).stopped is not None
    assert (await cleanup.once(dry_run=False)).orphans_quarantined == 1


async def test_orphans_in_masses_mean_that_the_catalog_is_wrong(cleanup: Cleanup, kept: Keeping) -> None:
    for number in range(11):
        orphan(kept, f"orphan-{number}")
    report = await cleanup.once(dry_run=False)
    assert report.orphans_quarantined == 0
    assert str(report.stopped).startswith("11 of 11 stored files belong to no upload; is this the right catalog?")
    assert quarantined(kept) == []
