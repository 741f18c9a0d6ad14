"""Tasks with an owner, which waits for them and reports their failures."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager


class Tasks:
    """Owns background tasks. If a task raises, `on_failure` gets the exception."""

    __slots__ = ("_on_failure", "_running")

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._on_failure = on_failure

    def __len__(self) -> int:
        return len(self._running)

    def spawn(
        self, work: Coroutine[None, None, None], on_failure: Callable[[BaseException], None] | None = None
    ) -> None:
        """Run `work` in the background. If it raises, its own `on_failure` gets the exception before the owner's."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)

        def finished(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                if on_failure is not None:
                    on_failure(error)
                self._on_failure(error)

        task.add_done_callback(finished)

    async def wait(self) -> None:
        """Wait until all tasks have ended, including tasks that they start."""
        while self._running:
            await asyncio.wait(self._running)

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        for task in self._running:
            task.cancel()
        await self.wait()


@asynccontextmanager
async def background(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `works` during the body of an `async with`, and cancel them at its end. If one fails, so does the body."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failures:
        if len(failures.exceptions) > 1:
            raise
        raise failures.exceptions[0] from None
