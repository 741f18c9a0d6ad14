"""The catalog's real decisions, on a database in memory, each behind a gate where it waits, passes or fails."""

import asyncio
import weakref
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Completed, Completion, OpenRequest, OpenResult, Progress, State, Upload, Usage
from daemon.catalog.sqlite import changes as rows
from daemon.catalog.sqlite.catalog import SqliteCatalog
from daemon.catalog.sqlite.lane import ConnectionLane
from protocol.ranges import DigestedRange
from tests.support.loop_turns import LoopThreads
from tests.support.memory_catalog import memory_catalog

Result = TypeVar("Result")


class Gate:
    """Where calls of one operation wait, pass or fail."""

    def __init__(self) -> None:
        self.asked = 0
        self.before = asyncio.Event()
        self.after = asyncio.Event()
        self.before.set()
        self.after.set()
        self.failures: deque[CatalogFailed] = deque()
        """Each is raised once, nothing having been done."""
        self.failures_after: deque[CatalogFailed] = deque()
        """Each is raised once though the operation was done: the answer was lost."""


class ControlledCatalog(SqliteCatalog):
    """A real catalog in memory, behind one gate for each operation."""

    def __init__(self) -> None:
        self._connection = memory_catalog()
        # Many tests drop the catalog instead of closing it, and Python 3.13 warns of open connections.
        weakref.finalize(self, self._connection.close)
        lane = ConnectionLane(LoopThreads(), "catalog", Path("nowhere"), lambda: self._connection, "BEGIN")
        super().__init__(lane, lane)
        self._lane = lane
        self.gates: defaultdict[str, Gate] = defaultdict(Gate)

    def at_once(self, upload_id: int) -> Upload | None:
        """What is recorded of an upload at this moment."""
        return rows.get(self._connection, upload_id)

    def recorded(self, upload_id: int) -> Sequence[DigestedRange]:
        """The ranges that are recorded of an upload at this moment."""
        upload = self.at_once(upload_id)
        return () if upload is None else upload.ranges

    async def open(self, request: OpenRequest) -> OpenResult:
        await self._enter("open")
        return await self._leave("open", await super().open(request))

    async def commit(self, progress: Sequence[Progress]) -> Sequence[bool]:
        await self._enter("commit")
        return await self._leave("commit", await super().commit(progress))

    async def complete(self, completion: Completion) -> Completed | None:
        await self._enter("complete")
        return await self._leave("complete", await super().complete(completion))

    async def end(self, upload_id: int, state: State, now_ms: int, epoch: int | None = None) -> Upload | None:
        await self._enter("end")
        return await self._leave("end", await super().end(upload_id, state, now_ms, epoch))

    async def find(self, tenant: str, device: str, name: str) -> Upload | None:
        await self._enter("find")
        return await self._leave("find", await super().find(tenant, device, name))

    async def usage(self, tenant: str, device: str) -> Usage:
        await self._enter("usage")
        return await self._leave("usage", await super().usage(tenant, device))

    async def close(self) -> None:
        await self._lane.close()
        self._connection.close()

    async def _enter(self, operation: str) -> None:
        gate = self.gates[operation]
        gate.asked += 1
        await gate.before.wait()
        if gate.failures:
            raise gate.failures.popleft()

    async def _leave(self, operation: str, result: Result) -> Result:
        gate = self.gates[operation]
        await gate.after.wait()
        if gate.failures_after:
            raise gate.failures_after.popleft()
        return result
