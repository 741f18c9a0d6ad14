"""What stays open, what is closed for others, and what nobody waits for any more."""

import asyncio
from pathlib import Path

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.storage.local import LocalStorage
from tests.daemon.storage.files import RecordedFiles, sync, within, write
from tests.daemon.storage.local.conftest import OPEN_FILES_MAX
from tests.daemon.storage.local.places import name


def uploads_open(files: RecordedFiles) -> list[str]:
    return sorted(opened for opened in files.open_names.values() if len(opened) == len(name(1)))


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
