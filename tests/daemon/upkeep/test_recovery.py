"""After a start: acknowledged bytes that are not there are found, told, and left as they are."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import State, Upload
from daemon.storage.interface import Reading
from daemon.upkeep import recovery as recovery_module
from daemon.upkeep.recovery import Recovery, RecoveryReport
from tests.support.fake_machine import NOW_MS, CapturedLog
from tests.support.populated_store import CONTENT, Keeping, keep


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keep(tmp_path) as opened:
        yield opened


@pytest.fixture
def log() -> CapturedLog:
    return CapturedLog()


@pytest.fixture
def recovery(kept: Keeping, log: CapturedLog) -> Recovery:
    return Recovery(kept.catalog, kept.storage.contents, log.logger)


async def test_an_empty_catalog_needs_no_check(recovery: Recovery) -> None:
    assert await recovery.run() == RecoveryReport(0, 0, ())


async def test_uploads_whose_bytes_are_there_are_not_doubtful(
    recovery: Recovery, kept: Keeping, log: CapturedLog
) -> None:
    await kept.add(1, NOW_MS)
    await kept.add(2, NOW_MS, content=b"")
    await kept.add(3, NOW_MS)
    with kept.path(3).open("ab") as file:
        file.write(b"written, and never acknowledged")
    assert await recovery.run() == RecoveryReport(3, 0, ())
    assert log.at("warning") == []


async def test_a_missing_and_a_short_file_are_reported_and_kept(
    recovery: Recovery, kept: Keeping, log: CapturedLog
) -> None:
    await kept.add(1, NOW_MS)
    await kept.add(2, NOW_MS, content=None)
    await kept.add(3, NOW_MS)
    kept.path(3).write_bytes(CONTENT[:-1])
    assert await recovery.run() == RecoveryReport(3, 2, (2, 3))
    assert [line["upload"] for line in log.lines if line["log_level"] == "warning"] == [f"{2:016x}", f"{3:016x}"]
    assert "the file has 9 bytes, 10 were acknowledged" in [line.get("detail") for line in log.lines]
    assert await kept.states() == dict.fromkeys((1, 2, 3), State.RECEIVING)
    assert kept.path(3).read_bytes() == CONTENT[:-1]


async def test_a_file_that_cannot_be_opened_is_in_doubt(recovery: Recovery, kept: Keeping) -> None:
    await kept.add(1, NOW_MS)
    kept.path(1).rename(kept.root / "elsewhere")
    kept.path(1).symlink_to(kept.root / "elsewhere")
    assert (await recovery.run()).doubtful_ids == (1,)


async def test_complete_files_are_not_read(recovery: Recovery, kept: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    for upload_id in range(1, 5):
        await kept.add(upload_id, NOW_MS, State.COMPLETE)

    async def never(upload_id: int) -> Reading:
        raise AssertionError(f"{upload_id} was opened")

    monkeypatch.setattr(kept.storage.contents, "open", never)
    assert (await recovery.run()).checked == 0


async def test_every_batch_is_checked(recovery: Recovery, kept: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "BATCH_UPLOADS", 2)
    for upload_id in range(1, 6):
        await kept.add(upload_id, NOW_MS, content=None if upload_id == 5 else CONTENT)
    assert await recovery.run() == RecoveryReport(5, 1, (5,))


async def test_only_the_first_of_very_many_are_named(
    recovery: Recovery, kept: Keeping, log: CapturedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "NAMED_MAX", 2)
    for upload_id in range(1, 5):
        await kept.add(upload_id, NOW_MS, content=None)
    assert await recovery.run() == RecoveryReport(4, 4, (1, 2))
    assert len(log.at("warning")) == 2


@pytest.mark.parametrize("ending", [State.DELETED, None])
async def test_an_upload_that_ends_meanwhile_is_not_doubtful(
    recovery: Recovery, kept: Keeping, monkeypatch: pytest.MonkeyPatch, ending: State | None
) -> None:
    await kept.add(1, NOW_MS)
    listed = await kept.catalog.receiving(0, 10)

    async def receiving(after_id: int, limit: int) -> Sequence[Upload]:
        return listed if after_id == 0 else ()

    monkeypatch.setattr(kept.catalog, "receiving", receiving)
    await kept.catalog.end(1, ending or State.EXPIRED, NOW_MS)
    await kept.storage.contents.remove(1)
    if ending is None:
        await kept.catalog.purge_tombstones(NOW_MS + 1, 10)
    assert await recovery.run() == RecoveryReport(1, 0, ())


async def test_a_catalog_failure_ends_the_check_and_is_reported(
    recovery: Recovery, kept: Keeping, log: CapturedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def receiving(after_id: int, limit: int) -> Sequence[Upload]:
        raise CatalogFailed("no disk")

    monkeypatch.setattr(kept.catalog, "receiving", receiving)
    assert (await recovery.run()).failed == "no disk"
    assert log.at("error") == ["recovery failed"]
