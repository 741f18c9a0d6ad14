"""Which uploads a failure reaches, which it does not, and what is never tried again."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.adapters.clock import SystemClock
from daemon.adapters.files import SystemFiles
from daemon.adapters.threads import SystemThreads
from daemon.storage.local.disk_writer import TOGETHER_FILES_MIN
from daemon.storage.local.storage import LocalStorage
from tests.daemon.storage.local.conftest import FAILURE, OPEN_FILES_MAX
from tests.support.deadlines import DEADLINE_S
from tests.support.recorded_files import RecordedFiles, sync, within, write
from tests.support.storage_paths import name, path_of


async def test_a_failed_write_is_reported_for_its_upload_alone(storage: LocalStorage, files: RecordedFiles) -> None:
    await within(write(storage.staging, 2, 0, b"x"))
    files.failures["write"] = FAILURE
    written = write(storage.staging, 1, 0, b"x")
    synced = sync(storage.staging, 1, 2)
    assert await within(written) is FAILURE
    assert await within(synced) == {1: FAILURE}
    assert ("sync_data", name(1)) not in files.calls


async def test_a_sync_knows_of_a_failed_write_whose_own_report_is_still_under_way(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    files.failures["write"] = FAILURE
    let_go = files.hold("write")
    # Both are queued before the first is tried, so that the sync's lane has its turn before the write is reported.
    write(storage.staging, 1, 0, b"x")
    synced = sync(storage.staging, 1)
    let_go()
    assert await within(synced) == {1: FAILURE}
    assert files.named("sync_data") == []


async def test_a_failed_sync_is_reported_for_its_upload_alone(storage: LocalStorage, files: RecordedFiles) -> None:
    write(storage.staging, 1, 0, b"x")
    files.failures["sync_data"] = FAILURE
    assert await within(sync(storage.staging, 1)) == {1: FAILURE}
    del files.failures["sync_data"]
    write(storage.staging, 2, 0, b"x")
    assert await within(sync(storage.staging, 2)) == {}


async def test_the_end_of_syncing_together_is_reported_once(tmp_path: Path, files: RecordedFiles) -> None:
    reasons: list[OSError] = []
    storage = LocalStorage(
        tmp_path, files, SystemThreads(), SystemClock(), 2 * TOGETHER_FILES_MIN, slower=reasons.append
    )
    files.failures["sync_file_system"] = FAILURE
    ids = range(1, 1 + TOGETHER_FILES_MIN)
    for offset in range(2):
        for upload_id in ids:
            write(storage.staging, upload_id, offset, b"x")
        assert await within(sync(storage.staging, *ids)) == {}
    await storage.close()
    assert reasons == [FAILURE]


async def test_a_failed_sync_is_never_retried_on_the_same_file(storage: LocalStorage, files: RecordedFiles) -> None:
    write(storage.staging, 1, 0, b"x")
    files.failures["sync_data"] = FAILURE
    await within(sync(storage.staging, 1))
    files.failures.clear()
    assert await within(sync(storage.staging, 1)) == {1: FAILURE}
    storage.staging.release(1)
    write(storage.staging, 1, 0, b"x")
    assert await within(sync(storage.staging, 1)) == {}


async def test_a_name_that_is_not_durable_fails_all_new_files_of_its_directory(
    storage: LocalStorage, files: RecordedFiles, tmp_path: Path
) -> None:
    path_of(tmp_path, 0x201).write_bytes(b"x")
    files.failures["sync_directory"] = FAILURE
    write(storage.staging, 0x001, 0, b"x")
    write(storage.staging, 0x101, 0, b"x")
    write(storage.staging, 0x201, 0, b"x", durable_bytes=1)
    assert await within(sync(storage.staging, 0x001, 0x101, 0x201)) == {0x001: FAILURE, 0x101: FAILURE}
    assert await within(sync(storage.staging, 0x001)) == {0x001: FAILURE}


async def test_after_a_failure_the_upload_can_begin_again(storage: LocalStorage, files: RecordedFiles) -> None:
    files.failures["create"] = FAILURE
    assert await within(write(storage.staging, 1, 0, b"x")) is FAILURE
    files.failures.clear()
    storage.staging.release(1)
    assert await within(write(storage.staging, 1, 0, b"x")) is None
    assert await within(sync(storage.staging, 1)) == {}


async def test_a_failed_close_fails_no_other_upload(storage: LocalStorage, files: RecordedFiles) -> None:
    write(storage.staging, 1, 0, b"x")
    await within(sync(storage.staging, 1))
    files.failures["close"] = FAILURE
    storage.staging.release(1)
    assert await within(write(storage.staging, 2, 0, b"x")) is None


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_fails_the_write_that_is_too_large_and_recovers(full_disk: Path) -> None:
    storage = LocalStorage(full_disk / "data", SystemFiles(), SystemThreads(), SystemClock(), OPEN_FILES_MAX)
    free_bytes = (await storage.space()).free_bytes
    assert await within(write(storage.staging, 1, 0, b"kept")) is None
    assert await within(sync(storage.staging, 1)) == {}
    error = await within(write(storage.staging, 2, 0, b"x" * free_bytes))
    assert error is not None
    assert error.errno == errno.ENOSPC
    assert (await within(sync(storage.staging, 1, 2))).keys() == {2}
    await storage.contents.remove(2)
    assert await within(write(storage.staging, 1, 4, b" and more", durable_bytes=4)) is None
    reading = await storage.contents.open(1)
    assert await reading.read(0, 100) == b"kept and more"
    await reading.close()
    await storage.close()


async def test_a_file_whose_size_cannot_be_read_is_not_left_open(storage: LocalStorage, files: RecordedFiles) -> None:
    await within(write(storage.staging, 1, 0, b"x"))
    files.failures["size"] = FAILURE
    with pytest.raises(OSError, match="Input/output error"):
        await storage.contents.open(1)
    assert files.named("close") == [("close", name(1))]


async def test_a_failed_removal_is_raised(storage: LocalStorage, files: RecordedFiles) -> None:
    files.failures["remove"] = FAILURE
    with pytest.raises(OSError, match="Input/output error"):
        await asyncio.wait_for(storage.contents.remove(1), DEADLINE_S)


async def test_a_file_shorter_than_what_was_acknowledged_is_not_written_on(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, SystemFiles(), SystemThreads(), SystemClock(), 10)
    try:
        assert await within(write(storage.staging, 1, 0, b"abc")) is None
        storage.staging.release(1)
        error = await within(write(storage.staging, 1, 9, b"on", durable_bytes=9))
        assert error is not None
        assert "shorter than what was acknowledged" in str(error)
    finally:
        await storage.close()
