"""Time under the test's control."""

import asyncio

from device.keepalive import TICK_S


class FakeTime:
    """Every sleep returns at once and moves the clock, except the keep-alive's ticks, which wait for `tick`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._ticks = asyncio.Event()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if seconds == TICK_S:
            await self._ticks.wait()
            return
        self.slept.append(round(seconds, 6))
        self.now += seconds
        await asyncio.sleep(0)

    def tick(self, seconds: float) -> None:
        """Let `seconds` pass, and wake the keep-alive."""
        self.now += seconds
        self._ticks.set()
        self._ticks = asyncio.Event()
