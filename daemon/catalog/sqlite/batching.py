"""Batches: requests to the catalog that come within some milliseconds share one trip to its thread.

A trip costs two switches of threads and a synced transaction, so a fleet that comes back at once must share trips.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from daemon.catalog.sqlite.lane import ConnectionLane
from daemon.shares import share_out

PACE_S = 0.004
"""Time between two trips: less than a commit cycle. When five thousand devices open uploads in a second, twenty of them
share a trip."""

OWNER_ITEMS_MAX = 64
"""Requests of one owner in one trip; its others wait for the next. One connection may have as many under way."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class BatchedRequests(Generic[Item, Answer]):
    """Batches requests for `function`, which answers them in their order and must write nothing if it raises.

    A request that follows a pause goes at once. `owner_of` says whose a request is: each gets a share of a trip.
    """

    def __init__(
        self,
        lane: ConnectionLane,
        operation: str,
        function: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[Answer]],
        owner_of: Callable[[Item], Hashable],
    ) -> None:
        self._lane = lane
        self._owner_of = owner_of
        self._operation = operation
        self._function = function
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._is_paced = False

    async def ask(self, item: Item) -> Answer:
        """The answer to `item`, once its transaction is committed. Raises what `ConnectionLane.run` raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._is_paced:
            self._is_paced = True
            loop.call_soon(self._submit)
        self._waiting.append((item, future))
        return await future

    def _submit(self) -> None:
        batch, self._waiting = share_out(self._waiting, lambda each: self._owner_of(each[0]), OWNER_ITEMS_MAX)
        self._is_paced = bool(batch)
        if batch:
            asyncio.get_running_loop().call_later(PACE_S, self._submit)
            self._run(batch)

    def _run(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        def succeed(answers: Sequence[Answer]) -> None:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

        def fail(error: Exception) -> None:
            if len(batch) == 1:
                ((_, future),) = batch
                if not future.done():
                    future.set_exception(error)
                return
            # Try each by itself, so that one that fails does not fail the others.
            for each in batch:
                self._run([each])

        items = [item for item, _ in batch]
        self._lane.submit(self._operation, lambda connection: self._function(connection, items), succeed, fail)
