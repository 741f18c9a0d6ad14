"""Directories: private, durable, and what is found in them or put aside."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.adapters.clock import SystemClock
from daemon.adapters.threads import SystemThreads
from daemon.storage.local.storage import LocalStorage
from tests.daemon.storage.local.storage.conftest import OPEN_FILES_MAX
from tests.support.recorded_files import RecordedFiles, within, write
from tests.support.storage_paths import name, path_of


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """As the daemon's command line sets it."""
    before = os.umask(0o077)
    yield
    os.umask(before)


async def test_directories_are_private_and_made_durable(tmp_path: Path) -> None:
    files = RecordedFiles()
    storage = LocalStorage(tmp_path / "data", files, SystemThreads(), SystemClock(), OPEN_FILES_MAX)
    await storage.close()
    made = [tmp_path / "data", tmp_path / "data" / "files", tmp_path / "data" / "files" / "a7"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3
    synced = [directory for _, directory in files.named("sync_directory")]
    assert synced == [tmp_path.name, "files", "data"]


async def test_the_parent_of_a_directory_that_was_there_is_nobodys_business(tmp_path: Path) -> None:
    files = RecordedFiles()
    storage = LocalStorage(tmp_path, files, SystemThreads(), SystemClock(), OPEN_FILES_MAX)
    await storage.close()
    assert ("sync_directory", tmp_path.parent.name) not in files.calls


async def test_files_are_private(storage: LocalStorage, tmp_path: Path) -> None:
    await within(write(storage, 1, 0, b"x"))
    assert path_of(tmp_path, 1).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")
async def test_an_operator_can_let_others_read_files(storage: LocalStorage, tmp_path: Path) -> None:
    rights = "user:nobody:rX,default:user:nobody:rX"
    subprocess.run(["setfacl", "-R", "-m", rights, str(tmp_path / "data" / "files")], check=True)  # noqa: ASYNC221
    await within(write(storage, 1, 0, b"x"))
    # With an ACL the group's bits show what the ACL may grant.
    assert path_of(tmp_path, 1).stat().st_mode & 0o777 == 0o640


async def test_where_an_upload_lies_is_said_below_the_files_directory(storage: LocalStorage, tmp_path: Path) -> None:
    await within(write(storage, 0xABC, 0, b"x"))
    assert tmp_path / "data" / "files" / storage.path(0xABC) == path_of(tmp_path, 0xABC)
    assert path_of(tmp_path, 0xABC).exists()


async def test_names_that_storage_does_not_give_stand_for_no_upload(storage: LocalStorage, tmp_path: Path) -> None:
    shard = tmp_path / "data" / "files" / "00"
    foreign = ["core", name(0x101), name(0), f"{1 << 63:016x}", f"{0xA00:016X}", "a" * 255]
    for each in (*foreign, name(0x100)):
        (shard / each).touch()
    found = {each.name: each for each in await storage.stored(0)}
    assert {key for key, each in found.items() if each.upload_id is None} == set(foreign)
    assert found[name(0x100)].upload_id == 0x100


async def test_what_lies_there_has_a_time_until_it_is_gone(storage: LocalStorage, tmp_path: Path) -> None:
    path = tmp_path / "data" / "files" / "00" / "core"
    path.touch()
    os.utime(path, (1, 2))
    assert await storage.modified_ms(0, "core") == 2000
    path.unlink()
    assert await storage.modified_ms(0, "core") is None


async def test_nothing_that_is_put_aside_is_ever_replaced(
    storage: LocalStorage, files: RecordedFiles, tmp_path: Path
) -> None:
    long_name = "n" * 255
    for content in ("first", "second"):
        (tmp_path / "data" / "files" / "07" / long_name).write_text(content)
        await storage.quarantine(7, long_name)
    quarantine = tmp_path / "data" / "quarantine"
    assert {str(path.parent.relative_to(quarantine)): path.read_text() for path in quarantine.rglob("n*")} == {
        "07-1": "first",
        "07-2": "second",
    }
    assert files.named("sync_directory")[:2] == [("sync_directory", "07-1"), ("sync_directory", "quarantine")]


async def test_foreign_directories_are_put_aside_too(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "data" / "files" / "07" / "lost").mkdir()
    await storage.quarantine(7, "lost")
    assert (tmp_path / "data" / "quarantine" / "07-1" / "lost").is_dir()
