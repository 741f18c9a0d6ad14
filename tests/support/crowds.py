"""Strangers who connect and say nothing, from one address, again and again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.raw_device import Wire
from tests.support.waiting import until


class Crowd:
    """Strangers at a daemon's door."""

    def __init__(self) -> None:
        self.arrivals = 0
        """Connections made so far."""

    async def stranger(self, address: tuple[str, int], local: tuple[str, int]) -> None:
        """Connect, stay until it is dropped, and come back."""
        while True:
            try:
                wire = await Wire.connect(address, local=local)
            except ConnectionError:
                continue
            self.arrivals += 1
            try:
                await wire.gone()
            finally:
                wire.hang_up()


@asynccontextmanager
async def crowd(address: tuple[str, int], local: tuple[str, int], count: int) -> AsyncIterator[Crowd]:
    """`count` strangers, all of whom have arrived."""
    strangers = Crowd()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(strangers.stranger(address, local)) for _ in range(count)]
        await until(lambda: strangers.arrivals >= count)
        yield strangers
        for each in tasks:
            each.cancel()
