"""The bytes to be sent, which can be read again from any place: what makes an upload resumable."""

import asyncio
import os
from typing import BinaryIO, Protocol

from device.exceptions import SourceError

READ_AHEAD_BYTES = 1024 * 1024
"""Read at a time: a hand-over to a thread costs about 50 µs, so small chunks must not each pay for one."""

Bytes = bytes | bytearray | memoryview


class Source(Protocol):
    """Something of a known size that can be read from any place."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    async def read(self, start: int, count: int) -> memoryview:
        """These bytes, all of them. Raises SourceError."""
        ...


class MemorySource:
    """Bytes in memory; the caller does not change them while they are sent."""

    def __init__(self, data: Bytes) -> None:
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)

    async def read(self, start: int, count: int) -> memoryview:
        return self._view[start : start + count]


class FileSource:
    """A seekable binary file, read off the event loop and ahead. Nobody else may use the file object meanwhile."""

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
            raise SourceError(
                f"the file ends after {start + len(data)} of {self.size} bytes: it was cut while it was being sent"
            )
        return memoryview(data)


async def open_source(source: Bytes | BinaryIO, size: int | None) -> Source:
    """A source over bytes or a file; of its first `size` bytes where that is given. Raises SourceError."""
    if isinstance(source, Bytes):
        memory = MemorySource(source)
        _check(size, memory.size)
        return memory if size is None else MemorySource(memoryview(source).cast("B")[:size])
    try:
        available = await asyncio.to_thread(source.seek, 0, os.SEEK_END)
    except OSError as error:
        raise SourceError(
            f"the source cannot be read from any place ({error}); an upload can only be resumed from one that can"
        ) from error
    _check(size, available)
    return FileSource(source, available if size is None else size)


def _check(size: int | None, available: int) -> None:
    if size is not None and not 0 <= size <= available:
        raise SourceError(f"size {size} is given, but the source has {available} bytes")
