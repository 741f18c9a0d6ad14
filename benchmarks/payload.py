"""The bytes to send, the same for every contestant."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_BYTES = 1 << 20

SEED = 20_260_101
"""Any seed would do. It is fixed so that every run sends the same bytes."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A file of pseudo-random bytes, which cannot be compressed or stored as holes."""

    path: Path
    size_bytes: int


def make(directory: Path, size_bytes: int) -> Payload:
    """Write and sync a file of `size_bytes` in `directory`, so that no write-back of it disturbs the measurement.

    It stays in the page cache, so senders read from memory.
    """
    payload = Payload(directory / f"payload-{size_bytes}", size_bytes)
    random = np.random.default_rng(SEED)
    with payload.path.open("wb") as file:
        for start in range(0, size_bytes, BLOCK_BYTES):
            file.write(random.bytes(min(BLOCK_BYTES, size_bytes - start)))
        file.flush()
        os.fsync(file.fileno())
    return payload
