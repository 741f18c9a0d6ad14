"""Time that passes when it is told to."""

import asyncio

from device.keepalive import TICK_S


class FakeTime:
    """Every sleep is over at once and moves the clock, except the ticks of the keep-alive, which wait for `tick`."""

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
        """Let `seconds` pass, and the keep-alive look at the clock."""
        self.now += seconds
        self._ticks.set()
        self._ticks = asyncio.Event()
