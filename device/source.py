"""The bytes to be sent. They can be read again from any offset, which makes an upload resumable."""

import asyncio
import os
from typing import BinaryIO, Protocol

from device.exceptions import SourceChanged, SourceError
from protocol.checksum import Buffer

READ_AHEAD_BYTES = 1024 * 1024
"""Read at a time: handing over to a thread costs about 50 µs, too much for each small chunk."""


class Source(Protocol):
    """Bytes of a known size, readable from any offset."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    async def read(self, start: int, count: int) -> memoryview:
        """These bytes, all of them. Raises SourceError."""
        ...


class MemorySource:
    """Bytes in memory."""

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)

    async def read(self, start: int, count: int) -> memoryview:
        return self._view[start : start + count]


class FileSource:
    """A seekable binary file, read ahead on a thread. Nothing else may use the file object during that time."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._block = memoryview(b"")
        self._start = 0
        self.size = size

    async def read(self, start: int, count: int) -> memoryview:
        if not self._start <= start <= start + count <= self._start + len(self._block):
            wanted = min(max(count, READ_AHEAD_BYTES), self.size - start)
            self._block = await asyncio.to_thread(self._load, start, wanted)
            self._start = start
        begin = start - self._start
        return self._block[begin : begin + count]

    def _load(self, start: int, count: int) -> memoryview:
        try:
            self._file.seek(start)
            data = self._file.read(count)
        except OSError as error:
            raise SourceError(f"bytes {start}-{start + count - 1} cannot be read: {error}") from error
        if len(data) < count:
            raise SourceChanged(
                f"the file ends after {start + len(data)} of {self.size} bytes: it was cut while it was being sent"
            )
        return memoryview(data)


async def open_source(source: Buffer | BinaryIO, size: int | None) -> Source:
    """All of a source, or its first `size` bytes. Raises SourceError."""
    if isinstance(source, Buffer):
        memory = MemorySource(source)
        _check(size, memory.size)
        return memory if size is None else MemorySource(memoryview(source).cast("B")[:size])
    try:
        available = await asyncio.to_thread(source.seek, 0, os.SEEK_END)
    except OSError as error:
        raise SourceError(
            f"the source is not seekable ({error}), so an upload of it could not be resumed; write it to a file first"
        ) from error
    _check(size, available)
    return FileSource(source, available if size is None else size)


def _check(size: int | None, available: int) -> None:
    if size is not None and not 0 <= size <= available:
        raise SourceError(f"size is {size}, but the source has {available} bytes")
