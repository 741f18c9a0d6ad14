"""One trip to the catalog's thread for all that is asked of it within some milliseconds.

A trip costs two switches of threads and a synced transaction, so a fleet that comes back at once must share them.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from daemon.catalog.sqlite.lane import ConnectionLane

PACE_S = 0.004
"""Between two trips: less than a commit cycle, and some twenty opens when five thousand come in a second."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gathering(Generic[Item, Answer]):
    """Gathers items for `function`, which answers them in order; if it raises it must have written nothing.

    What is asked after a pause goes at once.
    """

    def __init__(
        self,
        lane: ConnectionLane,
        operation: str,
        function: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[Answer]],
    ) -> None:
        self._lane = lane
        self._operation = operation
        self._function = function
        self._asked: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._is_paced = False

    async def ask(self, item: Item) -> Answer:
        """The answer to `item`, once the transaction that it was part of is committed. Raises as ConnectionLane.run."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._is_paced:
            self._is_paced = True
            loop.call_soon(self._submit)
        self._asked.append((item, future))
        return await future

    def _submit(self) -> None:
        asked, self._asked = self._asked, []
        self._is_paced = bool(asked)
        if asked:
            asyncio.get_running_loop().call_later(PACE_S, self._submit)
            self._run(asked)

    def _run(self, asked: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        def answer(answers: Sequence[Answer]) -> None:
            for (_, future), each in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(each)

        def fail(error: Exception) -> None:
            if len(asked) == 1:
                ((_, future),) = asked
                if not future.done():
                    future.set_exception(error)
                return
            # Each once more by itself, so that one that cannot be answered spoils no other.
            for each in asked:
                self._run([each])

        items = [item for item, _ in asked]
        self._lane.submit(self._operation, lambda connection: self._function(connection, items), answer, fail)
