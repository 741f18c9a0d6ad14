"""What the daemon needs of storage: one interface for each use. How a sync is done is the implementation's secret."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocol.checksum import Buffer


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


class Staging(Protocol):
    """Takes the bytes of uploads under way. Whether a sync goes file by file is its secret.

    Callbacks run on the event loop; those of one upload's writes in the order of the calls.
    """

    def write(
        self,
        upload_id: int,
        offset: int,
        pieces: Sequence[Buffer],
        durable_bytes: int,
        done: Callable[[OSError | None], None],
    ) -> None:
        """Write pieces one after the other at `offset`. They must not change until `done` is called.

        `durable_bytes` is one above the last durable byte, 0 for none: the write fails if less is stored.
        """
        ...

    def sync(self, upload_ids: Sequence[int], done: Callable[[dict[int, OSError]], None]) -> None:
        """Make everything written before this call durable; `done` gets the uploads that failed, now or earlier."""
        ...

    def release(self, upload_id: int) -> None:
        """Forget what is open for the upload: it will not be written for a while, or has failed."""
        ...


class Reading(Protocol):
    """The bytes of one upload, open for reading. They stay readable when the upload is removed."""

    @property
    def size(self) -> int:
        """Bytes stored when it was opened."""
        ...

    async def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes at `offset`; fewer only at the end. Raises OSError."""
        ...

    async def close(self) -> None:
        """Give it back; no read may be under way."""
        ...


class Contents(Protocol):
    """Gives back the bytes of uploads, and deletes them."""

    async def open(self, upload_id: int) -> Reading:
        """Open for reading. Raises OSError, FileNotFoundError where there are no bytes."""
        ...

    async def remove(self, upload_id: int) -> int:
        """Delete the upload's bytes after the writes queued before; returns how many there were. Raises OSError."""
        ...


class Sendable(Reading, Protocol):
    """A reading whose bytes the kernel sends by itself (sendfile). Not every storage has it."""

    def send(self, socket_fd: int, offset: int, count: int) -> AsyncGenerator[int, None]:
        """Send `count` bytes at `offset` to a connected socket that does not block, without a copy.

        Yields a number of bytes each time the socket took some. Ends early where the file ends. Raises OSError, and
        ConnectionError when the other side has gone. Must be closed.
        """
        ...


class SendableContents(Contents, Protocol):
    """Contents in local files, which the kernel or a reverse proxy can send. Not every storage has them."""

    async def open(self, upload_id: int) -> Sendable: ...

    def path(self, upload_id: int) -> str:
        """Where the upload's bytes lie, or will, below the directory of all: for a reverse proxy that sends them."""
        ...


class Inventory(Protocol):
    """Lists everything in storage, also what belongs to no upload. Not every storage has it."""

    @property
    def shards(self) -> int:
        """In how many parts `stored` lists."""
        ...

    async def stored(self, shard: int) -> tuple[Stored, ...]:
        """What lies in one of the `shards` parts of storage. Raises OSError."""
        ...

    async def modified_ms(self, shard: int, name: str) -> int | None:
        """When something found there was last written, in Unix milliseconds; None: it is gone. Raises OSError."""
        ...

    async def quarantine(self, shard: int, name: str) -> None:
        """Move something that belongs to no upload out of the way, without deleting it. Raises OSError."""
        ...


class Storage(Protocol):
    """The parts of one storage, opened together."""

    @property
    def staging(self) -> Staging: ...

    @property
    def contents(self) -> SendableContents: ...

    @property
    def inventory(self) -> Inventory: ...

    async def space(self) -> Space:
        """Room for uploads. Raises OSError."""
        ...

    async def close(self) -> None:
        """Finish what is queued and close everything."""
        ...
