"""Local storage's directories: private, and durable."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.adapters.clock import SystemClock
from daemon.adapters.threads import SystemThreads
from daemon.storage.local.storage import LocalStorage
from tests.daemon.storage.local.conftest import OPEN_FILES_MAX
from tests.support.recorded_files import RecordedFiles, within, write
from tests.support.storage_paths import path_of
from tests.support.umask import umask_set


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """As the daemon's command line sets it."""
    with umask_set(0o077):
        yield


async def test_directories_are_private_and_made_durable(tmp_path: Path) -> None:
    files = RecordedFiles()
    storage = LocalStorage(tmp_path / "data", files, SystemThreads(), SystemClock(), OPEN_FILES_MAX)
    await storage.close()
    made = [tmp_path / "data", tmp_path / "data" / "files", tmp_path / "data" / "files" / "a7"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3
    synced = [directory for _, directory in files.named("sync_directory")]
    assert synced == [tmp_path.name, "files", "data"]


async def test_the_parent_of_an_existing_directory_is_left_alone(tmp_path: Path) -> None:
    files = RecordedFiles()
    storage = LocalStorage(tmp_path, files, SystemThreads(), SystemClock(), OPEN_FILES_MAX)
    await storage.close()
    assert ("sync_directory", tmp_path.parent.name) not in files.calls


async def test_files_are_private(storage: LocalStorage, tmp_path: Path) -> None:
    await within(write(storage.staging, 1, 0, b"x"))
    assert path_of(tmp_path, 1).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")
async def test_an_operator_can_let_others_read_files(storage: LocalStorage, tmp_path: Path) -> None:
    rights = "user:nobody:rX,default:user:nobody:rX"
    subprocess.run(["setfacl", "-R", "-m", rights, str(tmp_path / "data" / "files")], check=True)  # noqa: ASYNC221 - nothing else runs
    await within(write(storage.staging, 1, 0, b"x"))
    # With an ACL the group's bits show what the ACL may grant.
    assert path_of(tmp_path, 1).stat().st_mode & 0o777 == 0o640
