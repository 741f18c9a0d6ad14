"""The bytes to be sent."""

import io
import os
from pathlib import Path

import pytest

from device.exceptions import SourceChanged, SourceError
from device.source import READ_AHEAD_BYTES, open_source

DATA = os.urandom(3 * READ_AHEAD_BYTES + 17)


class CountingFile(io.BytesIO):
    """Counts reads, and can be made to fail."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = 0
        self.broken = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.broken:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("start", [0, 1, READ_AHEAD_BYTES - 1, 2 * READ_AHEAD_BYTES, len(DATA) - 1])
async def test_memory_and_files_read_the_same(start: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    count = min(5000, len(DATA) - start)
    with path.open("rb") as file:
        for source in (DATA, bytearray(DATA), memoryview(DATA), file):
            opened = await open_source(source, None)
            assert opened.size == len(DATA)
            assert await opened.read(start, count) == DATA[start : start + count]


async def test_small_reads_are_served_from_one_block() -> None:
    file = CountingFile(DATA)
    source = await open_source(file, None)
    for start in range(0, READ_AHEAD_BYTES, READ_AHEAD_BYTES // 16):
        assert await source.read(start, 100) == DATA[start : start + 100]
    assert file.reads == 1
    large = 2 * READ_AHEAD_BYTES
    assert await source.read(5, large) == DATA[5 : 5 + large]
    assert file.reads == 2


async def test_only_the_first_bytes_where_a_size_is_given() -> None:
    for kind in (DATA, io.BytesIO(DATA)):
        source = await open_source(kind, 1000)
        assert source.size == 1000
        assert await source.read(900, 100) == DATA[900:1000]


@pytest.mark.parametrize("size", [-1, len(DATA) + 1])
async def test_a_size_beyond_the_source_is_refused(size: int) -> None:
    for kind in (DATA, io.BytesIO(DATA)):
        with pytest.raises(SourceError, match=f"but the source has {len(DATA)} bytes"):
            await open_source(kind, size)


async def test_a_file_that_shrinks_is_reported() -> None:
    file = io.BytesIO(DATA)
    source = await open_source(file, None)
    file.truncate(10)
    with pytest.raises(SourceChanged, match=f"the file ends after 10 of {len(DATA)} bytes"):
        await source.read(0, 100)


async def test_a_file_that_cannot_be_read_is_reported() -> None:
    file = CountingFile(DATA)
    source = await open_source(file, None)
    file.broken = True
    with pytest.raises(SourceError, match=r"bytes 0-.* cannot be read: .*Input/output error"):
        await source.read(0, 100)


async def test_a_pipe_cannot_be_resumed() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, pytest.raises(SourceError, match="not seekable"):
        await open_source(pipe, None)
