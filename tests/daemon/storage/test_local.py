"""Local storage: what is synced before a sync is reported, who is told of a failure, and what stays open."""

import asyncio
import errno
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daemon.adapters.files import SystemFiles
from daemon.adapters.threads import SystemThreads
from daemon.storage.local import SHARDS, LocalStorage
from daemon.storage.syncing import TOGETHER_FILES_MIN
from tests.daemon.storage.files import DEADLINE_S, RecordedFiles, sync, within, write

OPEN_FILES_MAX = 3
FAILURE = OSError(errno.EIO, "Input/output error")


@pytest.fixture
def files() -> RecordedFiles:
    return RecordedFiles()


@pytest.fixture
async def storage(tmp_path: Path, files: RecordedFiles) -> AsyncIterator[LocalStorage]:
    opened = LocalStorage(tmp_path / "data", files, SystemThreads(), OPEN_FILES_MAX)
    files.calls.clear()
    yield opened
    files.failures.clear()
    await opened.close()
    assert files.open_names == {}, "every descriptor is closed at the end"


def uploads_open(files: RecordedFiles) -> list[str]:
    return sorted(opened for opened in files.open_names.values() if len(opened) == len(name(1)))


def path_of(tmp_path: Path, upload_id: int) -> Path:
    return tmp_path / "data" / "files" / f"{upload_id % SHARDS:02x}" / name(upload_id)


def name(upload_id: int) -> str:
    return f"{upload_id:016x}"


# Directories.


async def test_directories_are_private_and_made_durable(tmp_path: Path) -> None:
    files = RecordedFiles()
    storage = LocalStorage(tmp_path / "data", files, SystemThreads(), OPEN_FILES_MAX)
    await storage.close()
    made = [tmp_path / "data", tmp_path / "data" / "files", tmp_path / "data" / "files" / "a7"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3
    synced = [directory for _, directory in files.named("sync_directory")]
    assert synced == [tmp_path.name, "files", "data"]


async def test_the_parent_of_a_directory_that_was_there_is_nobodys_business(tmp_path: Path) -> None:
    files = RecordedFiles()
    storage = LocalStorage(tmp_path, files, SystemThreads(), OPEN_FILES_MAX)
    await storage.close()
    assert ("sync_directory", tmp_path.parent.name) not in files.calls


async def test_files_are_private(storage: LocalStorage, tmp_path: Path) -> None:
    await within(write(storage, 1, 0, b"x"))
    assert path_of(tmp_path, 1).stat().st_mode & 0o777 == 0o600


# What is synced.


async def test_a_new_file_is_synced_and_then_its_name_and_then_reported(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    write(storage, 0x101, 0, b"x")
    reported = sync(storage, 0x101)
    await within(reported)
    assert files.calls == [
        ("create", name(0x101)),
        ("write", name(0x101)),
        ("sync_data", name(0x101)),
        ("sync_directory", "01"),
    ]


async def test_a_sync_is_not_reported_before_it_is_done(storage: LocalStorage, files: RecordedFiles) -> None:
    let_go = files.hold("sync_data")
    await within(write(storage, 1, 0, b"x"))
    reported = sync(storage, 1)
    await within(write(storage, 1, 1, b"receiving goes on meanwhile"))
    assert not reported.done()
    let_go()
    assert await within(reported) == {}


async def test_a_name_is_synced_once(storage: LocalStorage, files: RecordedFiles) -> None:
    for offset in range(3):
        write(storage, 1, offset, b"x", durable_bytes=offset)
        await within(sync(storage, 1))
    assert len(files.named("sync_data")) == 3
    assert len(files.named("sync_directory")) == 1


async def test_names_in_one_directory_are_synced_together(storage: LocalStorage, files: RecordedFiles) -> None:
    for upload_id in (0x001, 0x101, 0x202):
        write(storage, upload_id, 0, b"x")
    await within(sync(storage, 0x001, 0x101, 0x202))
    assert sorted(files.named("sync_directory")) == [("sync_directory", "01"), ("sync_directory", "02")]


async def test_a_file_that_was_there_needs_no_sync_of_its_name(
    storage: LocalStorage, files: RecordedFiles, tmp_path: Path
) -> None:
    path_of(tmp_path, 1).write_bytes(b"abc")
    write(storage, 1, 3, b"d", durable_bytes=3)
    await within(sync(storage, 1))
    assert files.calls == [("open", name(1)), ("size", name(1)), ("write", name(1)), ("sync_data", name(1))]


async def test_a_name_that_was_not_durable_yet_is_synced_by_the_next_to_write(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    await within(write(storage, 1, 0, b"x"))
    storage.release(1)
    write(storage, 1, 0, b"x")
    await within(sync(storage, 1))
    assert files.named("sync_directory") == [("sync_directory", "01")]


async def test_without_durability_nothing_is_synced(tmp_path: Path, files: RecordedFiles) -> None:
    storage = LocalStorage(tmp_path, files, SystemThreads(), OPEN_FILES_MAX, is_durable=False)
    files.calls.clear()
    write(storage, 1, 0, b"x")
    assert await within(sync(storage, 1)) == {}
    files.failures["write"] = FAILURE
    write(storage, 1, 1, b"x")
    assert await within(sync(storage, 1)) == {1: FAILURE}
    await storage.close()
    assert files.named("sync_data", "sync_directory") == []


async def test_files_on_another_file_system_than_the_root_are_synced_one_by_one(
    tmp_path: Path, files: RecordedFiles
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "bulk").mkdir()
        (tmp_path / "bulk" / "files").symlink_to(elsewhere)
        storage = LocalStorage(tmp_path / "bulk", files, SystemThreads(), OPEN_FILES_MAX)
        ids = range(1, 2 * TOGETHER_FILES_MIN)
        for upload_id in ids:
            write(storage, upload_id, 0, b"x")
        assert await within(sync(storage, *ids)) == {}
        await storage.close()
    assert len(files.named("sync_data")) == len(ids)


# Failures.


async def test_a_failed_write_is_told_to_its_upload_alone(storage: LocalStorage, files: RecordedFiles) -> None:
    await within(write(storage, 2, 0, b"x"))
    files.failures["write"] = FAILURE
    written = write(storage, 1, 0, b"x")
    synced = sync(storage, 1, 2)
    assert await within(written) is FAILURE
    assert await within(synced) == {1: FAILURE}
    assert ("sync_data", name(1)) not in files.calls


async def test_a_sync_knows_of_a_failed_write_whose_own_report_is_still_under_way(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    files.failures["write"] = FAILURE
    let_go = files.hold("write")
    # Both are queued before the first is tried, so that the sync's lane has its turn before the write is reported.
    write(storage, 1, 0, b"x")
    synced = sync(storage, 1)
    let_go()
    assert await within(synced) == {1: FAILURE}
    assert files.named("sync_data") == []


async def test_a_failed_sync_is_told_to_its_upload_alone(storage: LocalStorage, files: RecordedFiles) -> None:
    write(storage, 1, 0, b"x")
    files.failures["sync_data"] = FAILURE
    assert await within(sync(storage, 1)) == {1: FAILURE}
    del files.failures["sync_data"]
    write(storage, 2, 0, b"x")
    assert await within(sync(storage, 2)) == {}


async def test_a_failed_sync_is_never_retried_on_the_same_file(storage: LocalStorage, files: RecordedFiles) -> None:
    write(storage, 1, 0, b"x")
    files.failures["sync_data"] = FAILURE
    await within(sync(storage, 1))
    files.failures.clear()
    assert await within(sync(storage, 1)) == {1: FAILURE}
    storage.release(1)
    write(storage, 1, 0, b"x")
    assert await within(sync(storage, 1)) == {}


async def test_a_name_that_is_not_durable_fails_all_new_files_of_its_directory(
    storage: LocalStorage, files: RecordedFiles, tmp_path: Path
) -> None:
    path_of(tmp_path, 0x201).write_bytes(b"x")
    files.failures["sync_directory"] = FAILURE
    write(storage, 0x001, 0, b"x")
    write(storage, 0x101, 0, b"x")
    write(storage, 0x201, 0, b"x", durable_bytes=1)
    assert await within(sync(storage, 0x001, 0x101, 0x201)) == {0x001: FAILURE, 0x101: FAILURE}
    assert await within(sync(storage, 0x001)) == {0x001: FAILURE}


async def test_after_a_failure_the_upload_begins_anew(storage: LocalStorage, files: RecordedFiles) -> None:
    files.failures["create"] = FAILURE
    assert await within(write(storage, 1, 0, b"x")) is FAILURE
    files.failures.clear()
    storage.release(1)
    assert await within(write(storage, 1, 0, b"x")) is None
    assert await within(sync(storage, 1)) == {}


async def test_a_file_that_fails_to_close_harms_nobody(storage: LocalStorage, files: RecordedFiles) -> None:
    write(storage, 1, 0, b"x")
    await within(sync(storage, 1))
    files.failures["close"] = FAILURE
    storage.release(1)
    assert await within(write(storage, 2, 0, b"x")) is None


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


async def test_a_full_disk_fails_who_writes_too_much_and_recovers(full_disk: Path) -> None:
    storage = LocalStorage(full_disk / "data", SystemFiles(), SystemThreads(), OPEN_FILES_MAX)
    free_bytes = (await storage.space()).free_bytes
    assert await within(write(storage, 1, 0, b"kept")) is None
    assert await within(sync(storage, 1)) == {}
    error = await within(write(storage, 2, 0, b"x" * free_bytes))
    assert error is not None
    assert error.errno == errno.ENOSPC
    assert (await within(sync(storage, 1, 2))).keys() == {2}
    await storage.remove(2)
    assert await within(write(storage, 1, 4, b" and more", durable_bytes=4)) is None
    assert await storage.read_once(1, 0, 100) == b"kept and more"
    await storage.close()


# Open files.


async def test_a_file_stays_open_between_writes(storage: LocalStorage, files: RecordedFiles) -> None:
    for offset in range(3):
        write(storage, 1, offset, b"x")
        await within(sync(storage, 1))
    assert len(files.named("create", "open")) == 1


async def test_files_at_rest_are_closed_above_the_bound_the_longest_unused_first(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    for upload_id in (1, 2, 3, 1, 4, 5):
        write(storage, upload_id, 0, b"x", durable_bytes=int(upload_id == 1 and ("create", name(1)) in files.calls))
        await within(sync(storage, upload_id))
    await storage.remove(99)
    assert uploads_open(files) == [name(1), name(4), name(5)]


async def test_a_file_with_unsynced_bytes_is_never_closed_for_others(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    ids = range(1, 3 * OPEN_FILES_MAX)
    await within(asyncio.gather(*(write(storage, upload_id, 0, b"x") for upload_id in ids)))
    assert files.named("close") == []
    assert await within(sync(storage, *ids)) == {}
    await storage.remove(99)
    assert len(uploads_open(files)) == OPEN_FILES_MAX


async def test_a_file_in_use_is_closed_once_it_is_not(storage: LocalStorage, files: RecordedFiles) -> None:
    let_go = files.hold("sync_data")
    await within(write(storage, 1, 0, b"x"))
    synced = sync(storage, 1)
    storage.release(1)
    await storage.remove(99)
    assert files.named("close") == []
    let_go()
    assert await within(synced) == {}
    await storage.remove(99)
    assert files.named("close") == [("close", name(1))]


async def test_closing_waits_for_a_sync_and_closes_what_it_had_in_use(tmp_path: Path, files: RecordedFiles) -> None:
    storage = LocalStorage(tmp_path, files, SystemThreads(), OPEN_FILES_MAX)
    let_go = files.hold("sync_data")
    await within(write(storage, 1, 0, b"x"))
    synced = sync(storage, 1)
    closing = asyncio.ensure_future(storage.close())
    let_go()
    await within(closing)
    assert synced.result() == {}
    assert files.open_names == {}


async def test_who_gave_up_opening_leaves_nothing_open(storage: LocalStorage, files: RecordedFiles) -> None:
    await within(write(storage, 1, 0, b"x"))
    let_go = files.hold("open_to_read")
    opening = asyncio.ensure_future(storage.open(1))
    # A first turn of the loop puts the call on the lane.
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    let_go()
    await storage.space()
    await storage.space()
    assert files.named("open_to_read", "close") == [("open_to_read", name(1)), ("close", name(1))]


async def test_who_gave_up_on_anything_else_disturbs_nothing(storage: LocalStorage, files: RecordedFiles) -> None:
    let_go = files.hold("remove")
    removing = asyncio.ensure_future(storage.remove(1))
    await asyncio.sleep(0)
    removing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await removing
    let_go()
    assert await within(write(storage, 2, 0, b"x")) is None


async def test_a_file_whose_size_cannot_be_told_is_not_left_open(storage: LocalStorage, files: RecordedFiles) -> None:
    await within(write(storage, 1, 0, b"x"))
    files.failures["size"] = FAILURE
    with pytest.raises(OSError, match="Input/output error"):
        await storage.open(1)
    assert files.named("close") == [("close", name(1))]


async def test_what_was_opened_while_its_removal_waited_is_read_no_more(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    await within(write(storage, 1, 0, b"abc"))
    let_go = files.hold("remove")
    removal = asyncio.ensure_future(storage.remove(1))
    await asyncio.sleep(0)
    assert await storage.read_once(1, 0, 3) == b"abc"
    let_go()
    await removal
    assert storage.read_cached(1, 0, 3) is None


async def test_a_removal_that_fails_is_told(storage: LocalStorage, files: RecordedFiles) -> None:
    files.failures["remove"] = FAILURE
    with pytest.raises(OSError, match="Input/output error"):
        await asyncio.wait_for(storage.remove(1), DEADLINE_S)


# What is found in storage.


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


async def test_a_file_shorter_than_what_was_acknowledged_is_not_written_on(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, SystemFiles(), SystemThreads(), 10)
    try:
        assert await within(write(storage, 1, 0, b"abc")) is None
        storage.release(1)
        error = await within(write(storage, 1, 9, b"on", durable_bytes=9))
        assert error is not None
        assert "shorter than what was acknowledged" in str(error)
    finally:
        await storage.close()
