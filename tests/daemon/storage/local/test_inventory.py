"""What is found in local storage's directories, or quarantined."""

import os
from pathlib import Path

from daemon.storage.local.storage import LocalStorage
from tests.support.recorded_files import RecordedFiles
from tests.support.storage_paths import name


async def test_names_that_storage_does_not_give_stand_for_no_upload(storage: LocalStorage, tmp_path: Path) -> None:
    shard = tmp_path / "data" / "files" / "00"
    foreign = ["core", name(0x101), name(0), f"{1 << 63:016x}", f"{0xA00:016X}", "a" * 255]
    for each in (*foreign, name(0x100)):
        (shard / each).touch()
    found = {each.name: each for each in await storage.inventory.stored(0)}
    assert {key for key, each in found.items() if each.upload_id is None} == set(foreign)
    assert found[name(0x100)].upload_id == 0x100


async def test_a_file_has_a_time_until_it_is_gone(storage: LocalStorage, tmp_path: Path) -> None:
    path = tmp_path / "data" / "files" / "00" / "core"
    path.touch()
    os.utime(path, (1, 2))
    assert await storage.inventory.modified_ms(0, "core") == 2000
    path.unlink()
    assert await storage.inventory.modified_ms(0, "core") is None


async def test_nothing_in_quarantine_is_ever_replaced(
    storage: LocalStorage, files: RecordedFiles, tmp_path: Path
) -> None:
    long_name = "n" * 255
    for content in ("first", "second"):
        (tmp_path / "data" / "files" / "07" / long_name).write_text(content)
        await storage.inventory.quarantine(7, long_name)
    quarantine = tmp_path / "data" / "quarantine"
    assert {str(path.parent.relative_to(quarantine)): path.read_text() for path in quarantine.rglob("n*")} == {
        "07-1": "first",
        "07-2": "second",
    }
    assert files.named("sync_directory")[:2] == [("sync_directory", "07-1"), ("sync_directory", "quarantine")]


async def test_foreign_directories_are_quarantined_too(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "data" / "files" / "07" / "lost").mkdir()
    await storage.inventory.quarantine(7, "lost")
    assert (tmp_path / "data" / "quarantine" / "07-1" / "lost").is_dir()
