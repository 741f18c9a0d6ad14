"""What a scene has at hand: the daemon, its own directory, and tries that clients of its own count."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.uplinkd import Uplinkd

HOSTILE_ADDRESS = "127.0.0.2"
"""Where hostile clients connect from. Modest devices have addresses of their own, as they would in the field."""


@dataclass(slots=True)
class Tries:
    """How often a legitimate client asked for something, and how often it got it."""

    made: int = 0
    succeeded: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One scene's daemon. `scale` is 1, or less in tests: counts of clients and bytes shrink with it."""

    daemon: Uplinkd
    directory: Path
    scale: float = 1
    tries: Tries = field(default_factory=Tries)
    notes: list[str] = field(default_factory=list)

    def some(self, count: int) -> int:
        """`count` of something, fewer in tests."""
        return max(1, round(count * self.scale))

    def records(self, name: str, frames: list[bytes]) -> Path:
        """A file of `frames`, each behind its length, as the C programs read them."""
        path = self.directory / name
        path.write_bytes(b"".join(len(each).to_bytes(4, "big") + each for each in frames))
        return path

    def unique(self) -> str:
        """A name that no other upload has."""
        return f"{time.monotonic_ns():x}-{os.urandom(4).hex()}"
