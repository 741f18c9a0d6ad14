"""What all peers that receive files have in common."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import process
from benchmarks.payload import Payload

PUT_TIMEOUT_S = 300
"""For one call of put: 2 GiB at 7 MiB/s, below any of them on any disk that is worth a measurement."""


@dataclass(frozen=True, slots=True)
class Receiver(ABC):
    """A running peer. `promise` says what holds when `put` returns; the files it stores are in `root`."""

    promise: str
    server: process.Server
    port: int
    root: Path

    @abstractmethod
    def put_many(self, payload: Payload, names: Sequence[str]) -> float:
        """Store the payload under each of `names`, all at once, a connection each.

        Seconds until every byte is durable. Raises process.Failed when one is not stored.
        """

    def put(self, payload: Payload, name: str) -> float:
        return self.put_many(payload, [name])

    def delete(self, name: str) -> None:
        (self.root / name).unlink()

    def sync(self, names: Sequence[str]) -> float:
        """Seconds to make what was stored durable in the peer's stead: the files, all at once, and their directory."""
        began = time.perf_counter()
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(_fdatasync, [self.root / name for name in names]))
        self.sync_directory()
        return time.perf_counter() - began

    def sync_directory(self) -> None:
        _fdatasync(self.root)


def _fdatasync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
