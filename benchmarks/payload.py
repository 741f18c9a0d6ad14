"""The bytes that are sent: the same for every contestant."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_BYTES = 1 << 20

SEED = 20_260_101
"""Any will do: with one seed the bytes are the same in every run."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A file of pseudo-random bytes, which no compression and no hole in a file can shorten."""

    path: Path
    size_bytes: int


def make(directory: Path, size_bytes: int) -> Payload:
    """Write `size_bytes` to a file in `directory`, synced, so that no write-back of it disturbs what is measured.

    It stays in the page cache: senders read memory.
    """
    payload = Payload(directory / f"payload-{size_bytes}", size_bytes)
    random = np.random.default_rng(SEED)
    with payload.path.open("wb") as file:
        for start in range(0, size_bytes, BLOCK_BYTES):
            file.write(random.bytes(min(BLOCK_BYTES, size_bytes - start)))
        file.flush()
        os.fsync(file.fileno())
    return payload
