"""Lanes: threads that each work through a queue in order.

Passing an item between threads costs about as much as a small write, so a lane takes everything in its queue at once
and reports once for the whole batch.
"""

import asyncio
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from daemon.adapters.exits import abandon

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that wants the interpreter waits for one that is busy. With Python's 5 ms, a lane waits that long
for a busy event loop after each write: beside a device of many small chunks, others' ACKs took 190 ms (p99), now 80."""

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)

Report = Callable[[], None]
"""Runs on the event loop when a batch is done."""

Work = Callable[[list[Item]], Report]
"""Runs on the lane's thread with all queued items, oldest first.

It must return failures in the report; an exception ends the process.
"""


class Lane(Protocol[Item_contra]):
    """A queue of work for one thread."""

    def put(self, item: Item_contra) -> None:
        """Queue one item. Never blocks, and may be called from any thread."""
        ...

    async def close(self) -> None:
        """Wait until all queued items are done and reported, and the thread has ended."""
        ...


class Threads(Protocol):
    """Makes lanes."""

    def lane(self, name: str, work: Work[Item]) -> Lane[Item]:
        """Start a lane whose thread is called `name`. Must be called on the running event loop."""
        ...


class SystemThreads:
    """Lanes on real threads, which get the interpreter SWITCH_INTERVAL_S after they ask for it."""

    __slots__ = ()

    def __init__(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)

    def lane(self, name: str, work: Work[Item]) -> Lane[Item]:
        return _ThreadLane(name, work)


class _ThreadLane(Generic[Item]):
    __slots__ = ("_closed", "_loop", "_queue", "_thread", "_work")

    def __init__(self, name: str, work: Work[Item]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        # A daemon thread, so that a disk that never responds cannot keep a drained process from exiting.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        self._queue.put(item)

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.shield(self._closed)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            items = [item for item in batch if item is not None]
            if items:
                self._loop.call_soon_threadsafe(self._report_of(items))
            if len(items) < len(batch):
                self._loop.call_soon_threadsafe(self._closed.set_result, None)
                return

    def _report_of(self, items: list[Item]) -> Report:
        try:
            return self._work(items)
        except BaseException as error:  # noqa: BLE001 - it ends the process
            # After an unexpected failure the state of the work is unknown, so the daemon must not acknowledge anything
            # more. If only the thread ended, everything that waits for it would hang.
            traceback.print_exc()
            abandon(f"thread {self._thread.name} failed: {error!r}")
