"""What every staging does: writes, syncs, and what the two report."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.deadlines import DEADLINE_S
from tests.support.recorded_files import sync, within, write
from tests.support.storages import IN_MEMORY, LOCAL, OTHER, UPLOAD, Stored, content, opened


@pytest.fixture(params=[*LOCAL, IN_MEMORY])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stored]:
    async with opened(request.param, tmp_path) as stored:
        yield stored


async def test_written_bytes_can_be_read(storage: Stored) -> None:
    assert await within(write(storage.staging, UPLOAD, 0, b"abc", b"", b"defg")) is None
    assert await within(sync(storage.staging, UPLOAD)) == {}
    assert await content(storage.contents, UPLOAD) == b"abcdefg"


async def test_any_buffer_is_written(storage: Stored) -> None:
    done: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    storage.staging.write(UPLOAD, 0, [b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3]], 0, done.set_result)
    assert await within(done) is None
    assert await content(storage.contents, UPLOAD) == b"abcdef"


async def test_writes_may_come_in_any_order(storage: Stored) -> None:
    written = [write(storage.staging, UPLOAD, offset, data) for offset, data in ((6, b"ghi"), (0, b"abc"), (3, b"def"))]
    assert await within(asyncio.gather(*written)) == [None] * 3
    assert await content(storage.contents, UPLOAD) == b"abcdefghi"


async def test_the_writes_of_an_upload_are_reported_in_order(storage: Stored) -> None:
    reported: list[int] = []

    def note(number: int, _: OSError | None) -> None:
        reported.append(number)

    for number in range(20):
        storage.staging.write(UPLOAD + number % 3, number, [b"x"], 0, partial(note, number))
    # A removal waits for the writes before it.
    await asyncio.wait_for(storage.contents.remove(OTHER), DEADLINE_S)
    assert [sorted(reported[:20]), [each for each in reported if each % 3 == 1]] == [[*range(20)], [*range(1, 20, 3)]]


async def test_uploads_do_not_mix(storage: Stored) -> None:
    await within(write(storage.staging, UPLOAD, 0, b"one"))
    await within(write(storage.staging, OTHER, 0, b"other"))
    assert await within(sync(storage.staging, UPLOAD, OTHER)) == {}
    assert await content(storage.contents, UPLOAD) == b"one"
    assert await content(storage.contents, OTHER) == b"other"


async def test_a_released_upload_can_go_on(storage: Stored) -> None:
    await within(write(storage.staging, UPLOAD, 0, b"abc"))
    await within(sync(storage.staging, UPLOAD))
    storage.staging.release(UPLOAD)
    assert await within(write(storage.staging, UPLOAD, 3, b"def", durable_bytes=3)) is None
    assert await within(sync(storage.staging, UPLOAD)) == {}
    assert await content(storage.contents, UPLOAD) == b"abcdef"


async def test_a_sync_of_nothing_succeeds(storage: Stored) -> None:
    assert await within(sync(storage.staging)) == {}
    assert await within(sync(storage.staging, UPLOAD)) == {}


async def test_releasing_an_unknown_upload_does_nothing(storage: Stored) -> None:
    storage.staging.release(UPLOAD)
    assert await within(write(storage.staging, UPLOAD, 0, b"abc")) is None


@pytest.mark.parametrize("storage", LOCAL, indirect=True)
async def test_when_durable_bytes_are_gone_the_next_write_and_sync_fail(storage: Stored) -> None:
    """The storage in memory takes that for a mistake of the test."""
    written = write(storage.staging, UPLOAD, 3, b"def", durable_bytes=3)
    synced = sync(storage.staging, UPLOAD)
    error, failed = await within(written), await within(synced)
    assert isinstance(error, FileNotFoundError)
    assert failed == {UPLOAD: error}
    with pytest.raises(FileNotFoundError):
        await storage.contents.open(UPLOAD)
