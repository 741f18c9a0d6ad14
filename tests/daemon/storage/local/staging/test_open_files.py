"""Which files stay open, which are closed to make room, and what cancelled calls leave."""

import asyncio
import errno
import itertools
from pathlib import Path

import pytest

from daemon.adapters.clock import SystemClock
from daemon.adapters.threads import SystemThreads
from daemon.storage.local.disk_writer import TOGETHER_FILES_MIN
from daemon.storage.local.storage import LocalStorage
from tests.daemon.storage.local.conftest import FAILURE, OPEN_FILES_MAX
from tests.support.recorded_files import RecordedFiles, sync, within, write
from tests.support.storage_paths import name, path_of


def uploads_open(files: RecordedFiles) -> list[str]:
    return sorted(opened for opened in files.open_names.values() if len(opened) == len(name(1)))


async def test_a_file_stays_open_between_writes(storage: LocalStorage, files: RecordedFiles) -> None:
    for offset in range(3):
        write(storage.staging, 1, offset, b"x")
        await within(sync(storage.staging, 1))
    assert len(files.named("create", "open")) == 1


async def test_files_at_rest_are_closed_above_the_bound_the_longest_unused_first(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    for upload_id in (1, 2, 3, 1, 4, 5):
        write(
            storage.staging,
            upload_id,
            0,
            b"x",
            durable_bytes=int(upload_id == 1 and ("create", name(1)) in files.calls),
        )
        await within(sync(storage.staging, upload_id))
    await storage.contents.remove(99)
    assert uploads_open(files) == [name(1), name(4), name(5)]


MANY = range(1, 3 * OPEN_FILES_MAX)
"""More uploads than may have a file open."""


async def write_many(storage: LocalStorage) -> None:
    """Two bytes to each of MANY, one after the other."""
    for offset in range(2):
        written = [write(storage.staging, upload_id, offset, b"x") for upload_id in MANY]
        assert await within(asyncio.gather(*written)) == [None] * len(MANY)


def most_open(files: RecordedFiles) -> int:
    """How many files of uploads were open at once."""
    changes = [-1 if operation == "close" else 1 for operation, _ in files.named("create", "open", "close")]
    return max(itertools.accumulate(changes))


async def test_the_bound_holds_among_files_that_are_not_synced_yet(
    storage: LocalStorage, files: RecordedFiles, tmp_path: Path
) -> None:
    await write_many(storage)
    assert most_open(files) == OPEN_FILES_MAX + 1
    assert uploads_open(files) == [name(upload_id) for upload_id in MANY[:OPEN_FILES_MAX]]
    assert all(path_of(tmp_path, upload_id).read_bytes() == b"xx" for upload_id in MANY)


async def test_files_closed_before_their_sync_are_synced_with_the_file_system(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    await write_many(storage)
    assert files.named("sync_data") == []
    assert await within(sync(storage.staging, *MANY)) == {}
    assert len(MANY) < TOGETHER_FILES_MIN
    assert [operation for operation, _ in files.named("sync_file_system", "sync_data", "sync_directory")] == [
        "sync_file_system"
    ]


async def test_files_closed_before_their_sync_are_lost_when_the_file_system_fails_to_sync(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    await write_many(storage)
    files.failures["sync_file_system"] = FAILURE
    failed = await within(sync(storage.staging, *MANY))
    assert list(failed) == list(MANY[OPEN_FILES_MAX:])
    assert {error.errno for error in failed.values()} == {errno.EIO}
    storage.staging.release(MANY[-1])
    await within(write(storage.staging, MANY[-1], 0, b"x"))
    assert await within(sync(storage.staging, MANY[-1])) == {}


async def test_without_a_sync_of_all_each_file_is_synced_before_it_is_closed(
    tmp_path: Path, files: RecordedFiles
) -> None:
    files.is_sound = False
    storage = LocalStorage(tmp_path, files, SystemThreads(), SystemClock(), OPEN_FILES_MAX)
    files.calls.clear()
    await write_many(storage)
    last = name(MANY[-1])
    once = [("create", last), ("write", last), ("sync_data", last), ("close", last)]
    assert [call for call in files.calls if call[1] == last] == once * 2
    files.calls.clear()
    assert await within(sync(storage.staging, *MANY)) == {}
    assert len(files.named("sync_data")) == OPEN_FILES_MAX
    assert len(files.named("sync_directory")) == len(MANY)
    await storage.close()
    assert files.open_names == {}


async def test_a_write_that_fails_above_the_bound_leaves_nothing_open(
    storage: LocalStorage, files: RecordedFiles
) -> None:
    await write_many(storage)
    files.failures["write"] = FAILURE
    assert await within(write(storage.staging, MANY[-1], 2, b"x")) is FAILURE
    assert await within(sync(storage.staging, MANY[-1])) == {MANY[-1]: FAILURE}
    assert len(uploads_open(files)) == OPEN_FILES_MAX


async def test_once_others_rest_a_file_stays_open_again(storage: LocalStorage, files: RecordedFiles) -> None:
    await write_many(storage)
    await within(sync(storage.staging, *MANY))
    await storage.contents.remove(99)
    files.calls.clear()
    for offset in (2, 3):
        await within(write(storage.staging, 99, offset, b"x"))
    assert [call for call in files.calls if call[1] == name(99)] == [
        ("create", name(99)),
        ("write", name(99)),
        ("write", name(99)),
    ]
    assert len(uploads_open(files)) <= OPEN_FILES_MAX


async def test_a_file_in_use_is_closed_once_it_is_not(storage: LocalStorage, files: RecordedFiles) -> None:
    let_go = files.hold("sync_data")
    await within(write(storage.staging, 1, 0, b"x"))
    synced = sync(storage.staging, 1)
    storage.staging.release(1)
    await storage.contents.remove(99)
    assert files.named("close") == []
    let_go()
    assert await within(synced) == {}
    await storage.contents.remove(99)
    assert files.named("close") == [("close", name(1))]


async def test_closing_waits_for_a_sync_and_closes_what_it_had_in_use(tmp_path: Path, files: RecordedFiles) -> None:
    storage = LocalStorage(tmp_path, files, SystemThreads(), SystemClock(), OPEN_FILES_MAX)
    let_go = files.hold("sync_data")
    await within(write(storage.staging, 1, 0, b"x"))
    synced = sync(storage.staging, 1)
    closing = asyncio.ensure_future(storage.close())
    let_go()
    await within(closing)
    assert synced.result() == {}
    assert files.open_names == {}


async def test_a_cancelled_opening_leaves_nothing_open(storage: LocalStorage, files: RecordedFiles) -> None:
    await within(write(storage.staging, 1, 0, b"x"))
    let_go = files.hold("open_to_read")
    opening = asyncio.ensure_future(storage.contents.open(1))
    # A first turn of the loop puts the call on the lane.
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    let_go()
    await storage.space()
    await storage.space()
    assert files.named("open_to_read", "close") == [("open_to_read", name(1)), ("close", name(1))]


async def test_a_cancelled_removal_disturbs_nothing(storage: LocalStorage, files: RecordedFiles) -> None:
    let_go = files.hold("remove")
    removing = asyncio.ensure_future(storage.contents.remove(1))
    await asyncio.sleep(0)
    removing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await removing
    let_go()
    assert await within(write(storage.staging, 2, 0, b"x")) is None
