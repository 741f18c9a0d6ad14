"""What all contents do: reading, and deletion."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.deadlines import DEADLINE_S
from tests.support.recorded_files import sync, within, write
from tests.support.storages import IN_MEMORY, LOCAL, OTHER, UPLOAD, Stored, content, opened


@pytest.fixture(params=[*LOCAL, IN_MEMORY])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stored]:
    async with opened(request.param, tmp_path) as stored:
        yield stored


async def test_any_part_can_be_read(storage: Stored) -> None:
    await within(write(storage.staging, UPLOAD, 0, b"abcdefg"))
    assert await content(storage.contents, UPLOAD) == b"abcdefg"
    assert await content(storage.contents, UPLOAD, 2, 3) == b"cde"


async def test_only_at_the_end_a_read_returns_fewer_bytes(storage: Stored) -> None:
    await within(write(storage.staging, UPLOAD, 0, b"abcdefg"))
    assert await content(storage.contents, UPLOAD, 5, 100) == b"fg"
    assert await content(storage.contents, UPLOAD, 7) == b""


async def test_a_reading_knows_how_many_bytes_are_stored(storage: Stored) -> None:
    await within(write(storage.staging, UPLOAD, 0, b"abcdefg"))
    reading = await storage.contents.open(UPLOAD)
    assert reading.size == 7
    await reading.close()


async def test_an_unknown_upload_cannot_be_opened_and_its_removal_frees_nothing(storage: Stored) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.contents.open(UPLOAD)
    assert await storage.contents.remove(UPLOAD) == 0


async def test_a_removal_waits_for_earlier_writes(storage: Stored) -> None:
    written = write(storage.staging, UPLOAD, 0, b"abc")
    assert await asyncio.wait_for(storage.contents.remove(UPLOAD), DEADLINE_S) == 3
    assert written.done()
    with pytest.raises(FileNotFoundError):
        await storage.contents.open(UPLOAD)


async def test_a_removal_leaves_other_uploads_alone(storage: Stored) -> None:
    await within(write(storage.staging, UPLOAD, 0, b"one"))
    await within(write(storage.staging, OTHER, 0, b"other"))
    await within(sync(storage.staging, UPLOAD, OTHER))
    assert await storage.contents.remove(UPLOAD) == 3
    assert await content(storage.contents, OTHER) == b"other"


async def test_a_removed_upload_can_be_written_again(storage: Stored) -> None:
    await within(write(storage.staging, UPLOAD, 0, b"abcdef"))
    await storage.contents.remove(UPLOAD)
    assert await within(write(storage.staging, UPLOAD, 0, b"xyz")) is None
    assert await content(storage.contents, UPLOAD) == b"xyz"


async def test_an_open_reading_outlives_the_removal(storage: Stored) -> None:
    await within(write(storage.staging, UPLOAD, 0, b"abc"))
    reading = await storage.contents.open(UPLOAD)
    await storage.contents.remove(UPLOAD)
    assert reading.size == 3
    assert await reading.read(0, 3) == b"abc"
    await reading.close()
