"""What the daemon needs of storage. How a sync is done is the implementation's secret."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the place where uploads are kept: all of it, and what may still be used."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """Something found in storage. `upload_id` is None where the name is not one that storage gives."""

    name: str
    upload_id: int | None


class Reading(Protocol):
    """The bytes of one upload, open for reading; they stay readable though the upload is removed meanwhile."""

    @property
    def size(self) -> int:
        """Bytes stored when it was opened."""
        ...

    async def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes at `offset`; fewer only at the end. Raises OSError."""
        ...

    def send(self, socket_fd: int, offset: int, count: int) -> AsyncGenerator[int, None]:
        """Send `count` bytes at `offset` to a connected socket that does not block, without a copy.

        Yields how many it took, each time that it took some; ends early where the file ends. Raises OSError,
        ConnectionError where the other side has gone. Must be closed.
        """
        ...

    async def close(self) -> None:
        """Give it back; no read may be under way."""
        ...


class Storage(Protocol):
    """Keeps bytes by upload id. Callbacks run on the event loop; those of writes in the order of the calls."""

    def write(
        self,
        upload_id: int,
        offset: int,
        pieces: Sequence[Buffer],
        durable_bytes: int,
        done: Callable[[OSError | None], None],
    ) -> None:
        """Write pieces one behind the other at `offset`. They must not change until `done` is called.

        `durable_bytes` is one above the last durable byte, 0 for none: the write fails if the file is shorter.
        """
        ...

    def sync(self, upload_ids: Sequence[int], done: Callable[[dict[int, OSError]], None]) -> None:
        """Make all that was written before this call durable; `done` is told which uploads failed, then or before."""
        ...

    def release(self, upload_id: int) -> None:
        """The upload will not be written for a while, or has failed: forget what is open for it."""
        ...

    async def remove(self, upload_id: int) -> int:
        """Delete the upload's bytes, once writes queued before are done; how many there were. Raises OSError."""
        ...

    async def open(self, upload_id: int) -> Reading:
        """Open for reading. Raises OSError, FileNotFoundError where there are no bytes."""
        ...

    def path(self, upload_id: int) -> str:
        """Where the upload's bytes lie, or will, below the directory of all: for a reverse proxy that sends them."""
        ...

    async def space(self) -> Space:
        """Raises OSError."""
        ...

    async def stored(self, shard: int) -> tuple[Stored, ...]:
        """What lies in one of the `shards` parts of storage. Raises OSError."""
        ...

    async def modified_ms(self, shard: int, name: str) -> int | None:
        """When something found there was last written, in Unix milliseconds; None: it is gone. Raises OSError."""
        ...

    @property
    def shards(self) -> int:
        """In how many parts `stored` lists."""
        ...

    async def quarantine(self, shard: int, name: str) -> None:
        """Move something that belongs to no upload out of the way, without deleting it. Raises OSError."""
        ...

    async def close(self) -> None:
        """Finish what is queued and close everything."""
        ...
