"""What every storage does: the contract of `Storage`, asked of each implementation."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from daemon.adapters.clock import SystemClock
from daemon.adapters.files import SystemFiles
from daemon.adapters.threads import SystemThreads
from daemon.storage.interface import Storage
from daemon.storage.local.storage import LocalStorage
from tests.support.deadlines import DEADLINE_S
from tests.support.recorded_files import sync, within, write

UPLOAD, OTHER = 0x1234567890ABCDEF, 0x7FFF_FFFF_FFFF_FFFF


@pytest.fixture(params=["local", "local, not durable"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    is_durable = request.param == "local"
    opened = LocalStorage(
        tmp_path / "data", SystemFiles(), SystemThreads(), SystemClock(), open_files_max=4, is_durable=is_durable
    )
    yield opened
    await opened.close()


async def content(storage: Storage, upload_id: int, offset: int = 0, count: int = 1 << 20) -> bytes:
    reading = await storage.open(upload_id)
    try:
        return await reading.read(offset, count)
    finally:
        await reading.close()


async def test_what_was_written_and_synced_is_read(storage: Storage) -> None:
    assert await within(write(storage, UPLOAD, 0, b"abc", b"", b"defg")) is None
    assert await within(sync(storage, UPLOAD)) == {}
    assert await content(storage, UPLOAD) == b"abcdefg"
    assert await content(storage, UPLOAD, 2, 3) == b"cde"
    assert await content(storage, UPLOAD, 5, 100) == b"fg"
    assert await content(storage, UPLOAD, 7) == b""


async def test_any_buffer_is_written(storage: Storage) -> None:
    done: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    storage.write(UPLOAD, 0, [b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3]], False, done.set_result)
    assert await within(done) is None
    assert await content(storage, UPLOAD) == b"abcdef"


async def test_bytes_may_come_in_any_order(storage: Storage) -> None:
    written = [write(storage, UPLOAD, 6, b"ghi"), write(storage, UPLOAD, 0, b"abc"), write(storage, UPLOAD, 3, b"def")]
    assert await within(asyncio.gather(*written)) == [None] * 3
    assert await content(storage, UPLOAD) == b"abcdefghi"


async def test_writes_are_reported_in_their_order(storage: Storage) -> None:
    told: list[int] = []

    def note(number: int, _: OSError | None) -> None:
        told.append(number)

    for number in range(20):
        storage.write(UPLOAD + number % 3, number, [b"x"], False, partial(note, number))
    # A removal waits for the writes before it.
    await asyncio.wait_for(storage.remove(OTHER), DEADLINE_S)
    assert told == list(range(20))


async def test_uploads_are_apart(storage: Storage) -> None:
    await within(write(storage, UPLOAD, 0, b"one"))
    await within(write(storage, OTHER, 0, b"other"))
    await within(sync(storage, UPLOAD, OTHER))
    assert await storage.remove(UPLOAD) == 3
    assert await content(storage, OTHER) == b"other"


async def test_an_upload_with_durable_bytes_goes_on(storage: Storage) -> None:
    await within(write(storage, UPLOAD, 0, b"abc"))
    await within(sync(storage, UPLOAD))
    storage.release(UPLOAD)
    assert await within(write(storage, UPLOAD, 3, b"def", durable_bytes=3)) is None
    assert await within(sync(storage, UPLOAD)) == {}
    assert await content(storage, UPLOAD) == b"abcdef"


async def test_durable_bytes_that_are_gone_fail_what_follows(storage: Storage) -> None:
    written = write(storage, UPLOAD, 3, b"def", durable_bytes=3)
    synced = sync(storage, UPLOAD)
    error, failed = await within(written), await within(synced)
    assert isinstance(error, FileNotFoundError)
    assert failed == {UPLOAD: error}
    with pytest.raises(FileNotFoundError):
        await storage.open(UPLOAD)


async def test_a_sync_of_nothing_succeeds(storage: Storage) -> None:
    assert await within(sync(storage)) == {}
    assert await within(sync(storage, UPLOAD)) == {}


async def test_what_is_not_there_cannot_be_opened_and_frees_nothing(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.open(UPLOAD)
    assert await storage.remove(UPLOAD) == 0


async def test_bytes_are_removed_after_the_writes_before(storage: Storage) -> None:
    written = write(storage, UPLOAD, 0, b"abc")
    assert await asyncio.wait_for(storage.remove(UPLOAD), DEADLINE_S) == 3
    assert written.done()
    with pytest.raises(FileNotFoundError):
        await storage.open(UPLOAD)


async def test_what_is_open_stays_readable_though_it_is_removed(storage: Storage) -> None:
    await within(write(storage, UPLOAD, 0, b"abc"))
    reading = await storage.open(UPLOAD)
    await storage.remove(UPLOAD)
    assert reading.size == 3
    assert await reading.read(0, 3) == b"abc"
    await reading.close()


async def test_space_is_that_of_the_disk(storage: Storage) -> None:
    space = await storage.space()
    assert 0 < space.free_bytes <= space.total_bytes


async def test_every_upload_is_in_one_part_of_storage(storage: Storage) -> None:
    ids = {UPLOAD, OTHER, 1, 2, 255, 256, 257}
    for upload_id in ids:
        await within(write(storage, upload_id, 0, b"x"))
    found = [each for shard in range(storage.shards) for each in await storage.stored(shard)]
    assert sorted(each.upload_id or 0 for each in found) == sorted(ids)


async def test_what_is_put_aside_is_not_stored_any_more(storage: Storage) -> None:
    await within(write(storage, 1, 0, b"x"))
    ((shard, found),) = [(shard, each) for shard in range(storage.shards) for each in await storage.stored(shard)]
    await storage.quarantine(shard, found.name)
    assert await storage.stored(shard) == ()
    with pytest.raises(FileNotFoundError):
        await storage.quarantine(shard, found.name)


async def test_what_was_queued_is_done_when_it_is_closed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, SystemFiles(), SystemThreads(), SystemClock(), open_files_max=4)
    written, synced = write(storage, UPLOAD, 0, b"abc"), sync(storage, UPLOAD)
    await storage.close()
    assert (written.result(), synced.result()) == (None, {})
