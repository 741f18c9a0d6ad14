"""What is made durable, and in which order, before a sync is reported."""

import tempfile
from pathlib import Path

from daemon.adapters.clock import SystemClock
from daemon.adapters.threads import SystemThreads
from daemon.storage.local.disk_writer import TOGETHER_FILES_MIN
from daemon.storage.local.storage import LocalStorage
from tests.daemon.storage.local.conftest import FAILURE, OPEN_FILES_MAX
from tests.support.recorded_files import RecordedFiles, sync, within, write
from tests.support.storage_paths import name, path_of


async def test_a_new_file_is_synced_and_then_its_name_and_then_reported(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    write(storage.staging, 0x101, 0, b"x")
    reported = sync(storage.staging, 0x101)
    await within(reported)
    assert files.calls == [
        ("create", name(0x101)),
        ("write", name(0x101)),
        ("sync_data", name(0x101)),
        ("sync_directory", "01"),
    ]


async def test_a_sync_is_not_reported_before_it_is_done(storage: LocalStorage, files: RecordedFiles) -> None:
    let_go = files.hold("sync_data")
    await within(write(storage.staging, 1, 0, b"x"))
    reported = sync(storage.staging, 1)
    await within(write(storage.staging, 1, 1, b"receiving goes on meanwhile"))
    assert not reported.done()
    let_go()
    assert await within(reported) == {}


async def test_a_name_is_synced_once(storage: LocalStorage, files: RecordedFiles) -> None:
    for offset in range(3):
        write(storage.staging, 1, offset, b"x", durable_bytes=offset)
        await within(sync(storage.staging, 1))
    assert len(files.named("sync_data")) == 3
    assert len(files.named("sync_directory")) == 1


async def test_names_in_one_directory_are_synced_together(storage: LocalStorage, files: RecordedFiles) -> None:
    for upload_id in (0x001, 0x101, 0x202):
        write(storage.staging, upload_id, 0, b"x")
    await within(sync(storage.staging, 0x001, 0x101, 0x202))
    assert sorted(files.named("sync_directory")) == [("sync_directory", "01"), ("sync_directory", "02")]


async def test_a_file_that_was_there_needs_no_sync_of_its_name(
    storage: LocalStorage, files: RecordedFiles, tmp_path: Path
) -> None:
    path_of(tmp_path, 1).write_bytes(b"abc")
    write(storage.staging, 1, 3, b"d", durable_bytes=3)
    await within(sync(storage.staging, 1))
    assert files.calls == [("open", name(1)), ("size", name(1)), ("write", name(1)), ("sync_data", name(1))]


async def test_a_name_that_was_not_durable_yet_is_synced_by_the_next_to_write(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    await within(write(storage.staging, 1, 0, b"x"))
    storage.staging.release(1)
    write(storage.staging, 1, 0, b"x")
    await within(sync(storage.staging, 1))
    assert files.named("sync_directory") == [("sync_directory", "01")]


async def test_without_durability_nothing_is_synced(tmp_path: Path, files: RecordedFiles) -> None:
    storage = LocalStorage(tmp_path, files, SystemThreads(), SystemClock(), OPEN_FILES_MAX, is_durable=False)
    files.calls.clear()
    write(storage.staging, 1, 0, b"x")
    assert await within(sync(storage.staging, 1)) == {}
    files.failures["write"] = FAILURE
    write(storage.staging, 1, 1, b"x")
    assert await within(sync(storage.staging, 1)) == {1: FAILURE}
    await storage.close()
    assert files.named("sync_data", "sync_directory") == []


async def test_files_on_another_file_system_than_the_root_are_synced_one_by_one(
    tmp_path: Path, files: RecordedFiles
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "bulk").mkdir()
        (tmp_path / "bulk" / "files").symlink_to(elsewhere)
        storage = LocalStorage(tmp_path / "bulk", files, SystemThreads(), SystemClock(), OPEN_FILES_MAX)
        ids = range(1, 2 * TOGETHER_FILES_MIN)
        for upload_id in ids:
            write(storage.staging, upload_id, 0, b"x")
        assert await within(sync(storage.staging, *ids)) == {}
        await storage.close()
    assert len(files.named("sync_data")) == len(ids)
