"""What all peers that receive files share."""

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
"""For one put: 2 GiB at 7 MiB/s, which is slower than any peer on any disk worth measuring."""


@dataclass(frozen=True, slots=True)
class Receiver(ABC):
    """A running peer. `promise` says how safe a file is when `put` returns. Files are stored in `root`."""

    promise: str
    server: process.Server
    port: int
    root: Path

    @abstractmethod
    def put_many(self, payload: Payload, names: Sequence[str]) -> float:
        """Store the payload under all `names` at once, with one connection for each.

        Returns the seconds until every byte is durable. Raises process.Failed when a file is not stored.
        """

    def put(self, payload: Payload, name: str) -> float:
        return self.put_many(payload, [name])

    def delete(self, name: str) -> None:
        (self.root / name).unlink()

    def sync(self, names: Sequence[str]) -> float:
        """Sync the files, all at once, and their directory, for a peer that does not. Returns the seconds it took."""
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
