"""Turns of the event loop: wait for a condition, and run work in them instead of in threads."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from daemon.adapters.threads import Lane, Report, Work

Item = TypeVar("Item")

TURNS = 40
"""Turns of the event loop: more than any chain of steps takes that waits only for the loop."""

TURNS_MAX = 20_000
"""A test's condition must hold within this many turns, since it waits only for steps of the loop."""


async def turns(count: int = TURNS) -> None:
    """Let the loop run until all possible steps are done."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds."""
    for _ in range(TURNS_MAX):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")


class LoopLane(Generic[Item]):
    """A lane that does its work on the event loop, in the next turn."""

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
    """Threads whose lanes all run on the event loop."""

    def lane(self, name: str, work: Work[Item]) -> Lane[Item]:
        return LoopLane(work)
