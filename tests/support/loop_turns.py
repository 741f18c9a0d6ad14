"""The event loop's turns: let them pass until something holds, and work in them in place of threads."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from daemon.adapters.threads import Lane, Report, Work

Item = TypeVar("Item")

TURNS = 40
"""Of the event loop: more than any chain of steps takes that waits for nothing but the loop."""

TURNS_MAX = 20_000
"""What a test waits for must be the case by then: only the loop's own steps are waited for."""


async def turns(count: int = TURNS) -> None:
    """Let everything happen that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let things happen until `condition` holds."""
    for _ in range(TURNS_MAX):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


class LoopLane(Generic[Item]):
    """Works on the event loop, in its next turn."""

    def __init__(self, work: Work[Item]) -> None:
        self._work = work
        self._items: list[Item] = []

    def put(self, item: Item) -> None:
        self._items.append(item)
        if len(self._items) == 1:
            asyncio.get_running_loop().call_soon(self._run)

    async def close(self) -> None:
        await turns(2)

    def _run(self) -> None:
        items, self._items = self._items, []
        report: Report = self._work(items)
        report()


class LoopThreads:
    """Threads of which the loop is the only one."""

    def lane(self, name: str, work: Work[Item]) -> Lane[Item]:
        return LoopLane(work)
