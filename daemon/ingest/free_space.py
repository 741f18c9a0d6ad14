"""Room on the data directory's disk, measured about once a second and kept up between two measurements."""

import asyncio
from typing import Protocol

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.storage.interface import Space

INTERVAL_S = 1.0
"""Between two measurements `free_bytes` follows what uploads take, so this is how late others' use is seen."""

OVERDUE_S = 10.0
"""A disk that has not answered for so long hangs: what was measured before says nothing of it any more."""


class Volume(Protocol):
    """What is measured."""

    async def space(self) -> Space:
        """Raises OSError."""
        ...


class Disk:
    """`free_bytes` and `total_bytes` as last measured, 0 before that. Who takes room subtracts it at once."""

    def __init__(self, volume: Volume, clock: Clock, log: BoundLogger) -> None:
        self._volume = volume
        self._clock = clock
        self._log = log
        self._failure: str | None = None
        self._measured_s: float | None = None
        self.free_bytes = 0
        self.total_bytes = 0

    async def measure(self) -> None:
        """Measure now. A failure keeps the last figures and is told by `problem`."""
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
        """Why uploads cannot be taken as far as the disk goes; None when they can."""
        if self._failure is not None:
            return f"its free space cannot be read: {self._failure}; check the data directory and its disk"
        if self._measured_s is None:
            return "its free space was not read yet: wait a second"
        age_s = self._clock.monotonic_s() - self._measured_s
        if age_s > OVERDUE_S:
            return f"it has not answered for {age_s:.0f} s: look for disk errors in the kernel's log"
        # Without any floor the catalog, too, finds no room on a full disk.
        if self.free_bytes < max(min_free_bytes, 1):
            return f"{self.free_bytes} bytes are free, {min_free_bytes} are to stay so: free room, or lower the floor"
        return None
