"""One SQLite connection on a thread of its own. Requests that wait together share one transaction.

A thread that works in SQLite releases the interpreter's lock at every step of a statement, and waits for a busy event
loop to get it back. So few statements make it fast, rather than few rows.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from daemon.adapters.clock import Clock
from daemon.adapters.threads import Report, Threads
from daemon.catalog.interface import CatalogFailed

Result = TypeVar("Result")

Connect = Callable[[], sqlite3.Connection]


@dataclass(frozen=True, slots=True)
class _Request:
    """`attempt` runs on the thread. What it returns runs on the event loop after the transaction, or else `fail`."""

    attempt: Callable[[sqlite3.Connection], Report]
    fail: Callable[[Exception], None]


@dataclass(frozen=True, slots=True)
class Watch:
    """Measures transactions. `observe` gets the seconds that each took, on the event loop."""

    clock: Clock
    observe: Callable[[float], None]


class _End(Enum):
    """The last item of the lane."""

    END = "end"


class ConnectionLane:
    """Runs functions on one connection. It connects on first use, and tries again after it failed to connect."""

    def __init__(
        self, threads: Threads, name: str, path: Path, connect: Connect, begin: str, watch: Watch | None = None
    ) -> None:
        """`begin` starts a transaction: BEGIN to read, BEGIN IMMEDIATE to write. Needs a running event loop."""
        self._path = path
        self._connect = connect
        self._begin = begin
        self._watch = watch
        self._connection: sqlite3.Connection | None = None
        self._closing = False
        self._lane = threads.lane(name, self._work)

    async def run(self, operation: str, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """What `function` returns, once its transaction is committed.

        If it raises, other functions of the transaction still commit. So it must not have written before it raises:
        only its first write may fail, or it takes a savepoint. Raises CatalogFailed for sqlite3.Error, else unchanged.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def succeed(result: Result) -> None:
            if not future.done():
                future.set_result(result)

        def fail(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        self.submit(operation, function, succeed, fail)
        return await future

    def submit(
        self,
        operation: str,
        function: Callable[[sqlite3.Connection], Result],
        succeed: Callable[[Result], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """Like `run`, but calls `succeed` or `fail` on the event loop instead of returning."""
        if self._closing:
            fail(CatalogFailed(f"{operation}: the catalog {self._path} is closed; ask before the daemon stops"))
            return

        def attempt(connection: sqlite3.Connection) -> Report:
            result = function(connection)
            return lambda: succeed(result)

        def failed(error: Exception) -> None:
            known = isinstance(error, sqlite3.Error)
            fail(_failed(operation, self._path, error) if known else error)

        self._lane.put(_Request(attempt, failed))

    async def close(self) -> None:
        """Finish the requests, then close the connection and end the thread. Must be called once."""
        self._closing = True
        self._lane.put(_End.END)
        await self._lane.close()

    def _work(self, items: list[_Request | _End]) -> Report:
        requests = [item for item in items if isinstance(item, _Request)]
        reports = self._transact(requests) if requests else []
        if len(requests) < len(items) and self._connection is not None:
            self._connection.close()

        def report() -> None:
            for each in reports:
                each()

        return report

    def _transact(self, requests: list[_Request]) -> Sequence[Report]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            started_s = self._now_s()
            self._connection.execute(self._begin)
            reports = [_attempt(self._connection, request) for request in requests]
            self._connection.execute("COMMIT")
            took_s = self._now_s() - started_s
        except Exception as error:  # noqa: BLE001 - handed to the callers: the lane must outlive it
            self._roll_back()
            return [_failure(request, error) for request in requests]
        return [*reports, lambda: self._observe(took_s)]

    def _now_s(self) -> float:
        return 0.0 if self._watch is None else self._watch.clock.monotonic_s()

    def _observe(self, took_s: float) -> None:
        if self._watch is not None:
            self._watch.observe(took_s)

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()


def _attempt(connection: sqlite3.Connection, request: _Request) -> Report:
    try:
        return request.attempt(connection)
    except Exception as error:
        if not connection.in_transaction:
            # SQLite has rolled the whole transaction back, as it does when the disk is full.
            raise
        return _failure(request, error)


def _failure(request: _Request, error: Exception) -> Report:
    return lambda: request.fail(error)


def _failed(operation: str, path: Path, error: Exception) -> CatalogFailed:
    # The low byte is the primary code. The upper bytes only refine it.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    disk_full = code == sqlite3.SQLITE_FULL
    if disk_full:
        advice = "free room on its disk; it works again once there is some"
    elif code == sqlite3.SQLITE_BUSY:
        advice = "another process holds it: end that process"
    elif code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        advice = f"stop the daemon, move {path.name}, {path.name}-wal and {path.name}-shm away, and restore a copy"
    else:
        advice = "check that the file and its directory can be read and written, and the system's log for disk errors"
    failure = CatalogFailed(f"{operation}: the catalog {path} failed ({error}): {advice}", disk_full=disk_full)
    failure.__cause__ = error
    return failure
