"""Bytes on their way in, as ingest takes them from any protocol: the wire's own events have this shape already."""

from collections.abc import Sequence
from typing import Protocol

from protocol.checksum import Buffer


class Received(Protocol):
    """One run of bytes of a file, from `start` up to but not including `end`, whose checksums are verified."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def data(self) -> Sequence[Buffer]:
        """The bytes, in pieces that follow each other."""
        ...

    @property
    def charged_bytes(self) -> int:
        """What the bytes take of their sender's window until they are answered."""
        ...

    @property
    def crc32c(self) -> int | None:
        """CRC32C of all the bytes, where it is known already."""
        ...


class Lease(Protocol):
    """The memory that received bytes lie in. It may be used again once every holder has released it."""

    def retain(self) -> None:
        """Add a holder."""
        ...

    def release(self) -> None:
        """Remove a holder."""
        ...
