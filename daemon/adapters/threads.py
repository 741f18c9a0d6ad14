"""Threads as the daemon uses them: lanes, each one thread that works through what was queued, in order.

The hand-over between threads costs about as much as a small write, so a lane takes everything that was queued
since it last looked and reports once for all of it.
"""

import asyncio
import queue
import threading
import traceback
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from daemon.adapters.exits import abandon

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)

Report = Callable[[], None]
"""Runs on the event loop once a batch is done."""

Work = Callable[[list[Item]], Report]
"""Runs on the lane's thread with all that was queued, oldest first.

Failures belong in the report; an exception ends the process.
"""


class Lane(Protocol[Item_contra]):
    """Work in order on one thread."""

    def put(self, item: Item_contra) -> None:
        """Queue one item; from any thread, never blocks."""
        ...

    async def close(self) -> None:
        """Return once everything queued has been worked on and reported and the thread has ended."""
        ...


class Threads(Protocol):
    """Makes lanes."""

    def lane(self, name: str, work: Work[Item]) -> Lane[Item]:
        """A new lane whose thread is called `name`. Must be called on the running event loop."""
        ...


class SystemThreads:
    """Lanes on real threads."""

    __slots__ = ()

    def lane(self, name: str, work: Work[Item]) -> Lane[Item]:
        return _ThreadLane(name, work)


class _ThreadLane(Generic[Item]):
    __slots__ = ("_closed", "_loop", "_queue", "_thread", "_work")

    def __init__(self, name: str, work: Work[Item]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        # Daemonic, so that a disk that never answers cannot keep a drained process from exiting.
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
            # Nothing is known of work that failed in a way nobody foresaw, so nothing more may be promised; a thread
            # that ended in silence would let everybody wait for ever.
            traceback.print_exc()
            abandon(f"thread {self._thread.name} failed: {error!r}")
