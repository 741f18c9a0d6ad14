"""Room on the data directory's disk, measured about once a second and updated between two measurements."""

import asyncio
from typing import Protocol

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.storage.interface import Space

INTERVAL_S = 1.0
"""`free_bytes` follows what uploads take at once, and what other programs take after this time."""

OVERDUE_S = 10.0
"""A disk that has not answered for this time hangs, and earlier figures say nothing about it."""


class Volume(Protocol):
    """What is measured."""

    async def space(self) -> Space:
        """Raises OSError."""
        ...


class Disk:
    """`free_bytes` and `total_bytes` as last measured, 0 before that. Whoever takes room subtracts it at once."""

    def __init__(self, volume: Volume, clock: Clock, log: BoundLogger) -> None:
        self._volume = volume
        self._clock = clock
        self._log = log
        self._failure: str | None = None
        self._measured_s: float | None = None
        self.free_bytes = 0
        self.total_bytes = 0

    async def measure(self) -> None:
        """Measure now. After a failure the last figures stay, and `problem` reports it."""
        try:
            space = await self._volume.space()
        except OSError as error:
            failure = error.strerror or str(error)
            if failure != self._failure:
                self._failure = failure
                self._log.error("disk not measured", error=failure)
            return
        self.free_bytes = space.free_bytes
        self.total_bytes = space.total_bytes
        self._measured_s = self._clock.monotonic_s()
        if self._failure is not None:
            self._failure = None
            self._log.info("disk measured again", free_bytes=space.free_bytes)

    async def run(self, interval_s: float = INTERVAL_S) -> None:
        """Measure until cancelled."""
        while True:
            await self.measure()
            await asyncio.sleep(interval_s)

    def problem(self, min_free_bytes: int) -> str | None:
        """Why the disk can take no uploads; None when it can."""
        if self._failure is not None:
            return f"its free space cannot be read: {self._failure}; check the data directory and its disk"
        if self._measured_s is None:
            return "its free space was not measured yet: wait a second"
        age_s = self._clock.monotonic_s() - self._measured_s
        if age_s > OVERDUE_S:
            return f"it has not answered for {age_s:.0f} s: look for disk errors in the kernel's log"
        # Even without a floor: on a full disk the catalog finds no room either.
        if self.free_bytes < max(min_free_bytes, 1):
            return f"{self.free_bytes} bytes are free, {min_free_bytes} must stay free: make room, or lower the floor"
        return None
