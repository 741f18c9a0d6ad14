"""The digests of a source, computed as its bytes are read. PROTOCOL.md §14."""

import hashlib
from dataclasses import dataclass

from protocol.checksum import Buffer, crc32c


@dataclass(frozen=True, slots=True)
class Digest:
    """What is known of the digests of a whole source; None for those that were not computed."""

    crc32c: int | None
    sha256: bytes | None


class RunningDigest:
    """CRC32C, and SHA-256 if wanted, of the bytes [0, `end_byte`)."""

    def __init__(self, *, sha256: bool) -> None:
        self._crc32c = 0
        self._sha256 = hashlib.sha256() if sha256 else None
        self.end_byte = 0

    def update(self, start: int, data: Buffer) -> None:
        """Add the part of `data`, which begins at `start`, that follows `end_byte`; bytes already added are skipped."""
        skipped = self.end_byte - start
        if not 0 <= skipped < len(data):
            return
        added = memoryview(data)[skipped:]
        self._crc32c = crc32c(added, self._crc32c)
        if self._sha256 is not None:
            self._sha256.update(added)
        self.end_byte += len(added)

    @property
    def value(self) -> Digest:
        """The digests of the bytes added so far."""
        return Digest(self._crc32c, None if self._sha256 is None else self._sha256.digest())
