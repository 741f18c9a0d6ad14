"""What identifies the bytes to be sent, so that a name never stands for a mix, or for other bytes. PROTOCOL.md §6, §14.

- Bytes in memory, small files, and streams: hashed before they are sent. The SHA-256 is the tag, and the server checks
  it as the bytes arrive.
- Large files: the tag is the time of modification, and CRC32C is computed while the file is read, also of what an
  earlier run has sent. No SHA-256, unless the caller gives one: a server that learns it only at the end reads the whole
  file back, which took longer than receiving it.
"""

import asyncio
import os
import stat
from typing import BinaryIO, Protocol

from device.digest import Digest, RunningDigest
from device.exceptions import SourceChanged
from device.source import READ_AHEAD_BYTES, FileSource, Source, open_source
from protocol.checksum import Buffer

HASHED_FIRST_BYTES_MAX = 64 * 1024 * 1024
"""Larger files are not read twice. Hashing this many bytes takes 40 ms at 1.6 GB/s, and far longer on a small board."""


class TransferSource(Protocol):
    """A source, and what identifies it."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def tag(self) -> bytes | None:
        """The tag for OPEN."""
        ...

    @property
    def sha256(self) -> bytes | None:
        """The SHA-256 for OPEN, if it is known before the bytes are sent."""
        ...

    async def read(self, start: int, count: int) -> memoryview:
        """These bytes, all of them. Raises SourceError."""
        ...

    async def digest(self) -> Digest:
        """The digests of the whole source. Raises SourceError."""
        ...

    async def check(self) -> None:
        """Look for a change since the source was identified. Raises SourceError."""
        ...


class HashedSource:
    """A source that was hashed before it is sent."""

    def __init__(self, source: Source, digest: Digest, tag: bytes | None) -> None:
        self._source = source
        self._digest = digest
        self.size = source.size
        self.sha256 = digest.sha256
        self.tag = digest.sha256 if tag is None else tag

    async def read(self, start: int, count: int) -> memoryview:
        return await self._source.read(start, count)

    async def digest(self) -> Digest:
        return self._digest

    async def check(self) -> None:
        found = await _hash(self._source)
        if found != self._digest:
            raise SourceChanged(
                "the source changed while it was being sent: "
                f"its SHA-256 was {_hex(self.sha256)} and is {_hex(found.sha256)} now"
            )


class WatchedFile(FileSource):
    """A regular file whose digest is computed while it is read. Each read looks at its size and time of modification.

    The tag leaves the inode out: FAT makes up new numbers with each mount, so a device would not resume after a
    reboot. Each read leaves the time of status change out, since renaming sets that as well.
    """

    def __init__(self, file: BinaryIO, found: os.stat_result, tag: bytes | None, sha256: bytes | None) -> None:
        super().__init__(file, found.st_size)
        self._modified_ns = found.st_mtime_ns
        self._running = RunningDigest(sha256=sha256 is not None)
        self.sha256 = sha256
        # OPEN has the size already.
        made = b"mtime_ns:%d" % found.st_mtime_ns if sha256 is None else sha256
        self.tag = made if tag is None else tag

    async def read(self, start: int, count: int) -> memoryview:
        await self._hash_to(start)
        return await super().read(start, count)

    async def digest(self) -> Digest:
        await self._hash_to(self.size)
        found = self._running.value
        if self.sha256 not in (None, found.sha256):
            raise _wrong_digest(found.sha256)
        return found

    async def check(self) -> None:
        self._compare()

    def _compare(self) -> None:
        found = os.fstat(self._file.fileno())
        if (found.st_size, found.st_mtime_ns) != (self.size, self._modified_ns):
            raise SourceChanged("the file changed while it was being sent")

    def _load(self, start: int, count: int) -> memoryview:
        block = super()._load(start, count)
        self._running.update(start, block)
        # After the read, so that a change during it is found.
        self._compare()
        return block

    async def _hash_to(self, end: int) -> None:
        """Read what this run has not read, since an earlier one sent it."""
        while (start := self._running.end_byte) < end:
            await super().read(start, min(READ_AHEAD_BYTES, end - start))


class UnidentifiedSource:
    """A source whose name the caller vouches for. Its CRC32C is known only if this run read all of it."""

    def __init__(self, source: Source, tag: bytes | None, sha256: bytes | None) -> None:
        self._source = source
        self._running = RunningDigest(sha256=False)
        self.size = source.size
        self.sha256 = sha256
        self.tag = tag

    async def read(self, start: int, count: int) -> memoryview:
        data = await self._source.read(start, count)
        self._running.update(start, data)
        return data

    async def digest(self) -> Digest:
        is_whole = self._running.end_byte == self.size
        return Digest(self._running.value.crc32c if is_whole else None, self.sha256)

    async def check(self) -> None:
        """There is nothing to compare with."""


async def open_transfer_source(
    source: Buffer | BinaryIO, size: int | None, *, tag: bytes | None, sha256: bytes | None, identify: bool
) -> TransferSource:
    """The first `size` bytes of a source, or all, identified unless the caller does without. Raises SourceError."""
    opened = await open_source(source, size)
    if not identify:
        return UnidentifiedSource(opened, tag, sha256)
    if not isinstance(source, Buffer) and size is None and opened.size > HASHED_FIRST_BYTES_MAX:
        found = _file_status(source)
        # A file object that decompresses has a descriptor too, but another size.
        if found is not None and found.st_size == opened.size:
            return WatchedFile(source, found, tag, sha256)
    digest = await _hash(opened)
    if sha256 not in (None, digest.sha256):
        raise _wrong_digest(digest.sha256)
    return HashedSource(opened, digest, tag)


async def _hash(source: Source) -> Digest:
    running = RunningDigest(sha256=True)
    while (start := running.end_byte) < source.size:
        block = await source.read(start, min(READ_AHEAD_BYTES, source.size - start))
        await asyncio.to_thread(running.update, start, block)
    return running.value


def _file_status(source: BinaryIO) -> os.stat_result | None:
    """None if the source is no regular file."""
    try:
        found = os.fstat(source.fileno())
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _wrong_digest(found: bytes | None) -> SourceChanged:
    return SourceChanged(f"the source has the SHA-256 {_hex(found)}, not the one that was given")


def _hex(digest: bytes | None) -> str:
    return "unknown" if digest is None else digest.hex()
