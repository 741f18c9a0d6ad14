"""One SQLite connection on a thread of its own: all that was asked since the last batch shares one transaction.

A thread that works in SQLite gives the interpreter's lock away at every step of a statement, and under a busy event
loop waits up to 5 ms to get it back. So what counts for speed is how few statements there are, not how few rows.
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
class _Job:
    """`attempt` runs on the thread; what it returns, or `fail`, runs on the event loop after the transaction."""

    attempt: Callable[[sqlite3.Connection], Report]
    fail: Callable[[Exception], None]


@dataclass(frozen=True, slots=True)
class Watch:
    """`tell` is told, on the event loop, how many seconds each transaction took."""

    clock: Clock
    tell: Callable[[float], None]


class _Close(Enum):
    """Asks the lane to let the connection go."""

    CLOSE = "close"


class ConnectionLane:
    """Runs functions on one connection, which is made on first use and again after it could not be."""

    def __init__(
        self, threads: Threads, name: str, path: Path, connect: Connect, begin: str, watch: Watch | None = None
    ) -> None:
        """`begin` starts a transaction: BEGIN to read, BEGIN IMMEDIATE to write. Call on the running event loop."""
        self._path = path
        self._connect = connect
        self._begin = begin
        self._watch = watch
        self._connection: sqlite3.Connection | None = None
        self._closing = False
        self._lane = threads.lane(name, self._work)

    async def run(self, operation: str, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """What `function` returns, once the transaction that it was part of is committed.

        A function that raises ends for itself alone, so it must not have written by then: its first write is the
        one that may fail, or it takes a savepoint. sqlite3.Error is raised as CatalogFailed, others as they are.
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
        """As `run`, with one of two functions called on the event loop in place of an answer."""
        if self._closing:
            fail(CatalogFailed(f"{operation}: the catalog {self._path} is closed; ask before the daemon stops"))
            return

        def attempt(connection: sqlite3.Connection) -> Report:
            result = function(connection)
            return lambda: succeed(result)

        def failed(error: Exception) -> None:
            known = isinstance(error, sqlite3.Error)
            fail(_failed(operation, self._path, error) if known else error)

        self._lane.put(_Job(attempt, failed))

    async def close(self) -> None:
        """Finish what was asked, then let the connection and the thread go. Must be called once."""
        self._closing = True
        self._lane.put(_Close.CLOSE)
        await self._lane.close()

    def _work(self, items: list[_Job | _Close]) -> Report:
        jobs = [item for item in items if isinstance(item, _Job)]
        reports = self._transact(jobs) if jobs else []
        if len(jobs) < len(items) and self._connection is not None:
            self._connection.close()

        def report() -> None:
            for each in reports:
                each()

        return report

    def _transact(self, jobs: list[_Job]) -> Sequence[Report]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            started_s = self._now_s()
            self._connection.execute(self._begin)
            reports = [_attempt(self._connection, job) for job in jobs]
            self._connection.execute("COMMIT")
            took_s = self._now_s() - started_s
        except Exception as error:  # noqa: BLE001 - handed to the callers: the lane must outlive it
            self._roll_back()
            return [_failure(job, error) for job in jobs]
        return [*reports, lambda: self._tell(took_s)]

    def _now_s(self) -> float:
        return 0.0 if self._watch is None else self._watch.clock.monotonic_s()

    def _tell(self, took_s: float) -> None:
        if self._watch is not None:
            self._watch.tell(took_s)

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()


def _attempt(connection: sqlite3.Connection, job: _Job) -> Report:
    try:
        return job.attempt(connection)
    except Exception as error:
        if not connection.in_transaction:
            # SQLite has given the whole transaction up, as it does when the disk is full.
            raise
        return _failure(job, error)


def _failure(job: _Job, error: Exception) -> Report:
    return lambda: job.fail(error)


def _failed(operation: str, path: Path, error: Exception) -> CatalogFailed:
    # The low byte is the primary code; what lies above it only refines.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    disk_full = code == sqlite3.SQLITE_FULL
    if disk_full:
        advice = "free room on its disk; it works again once there is some"
    elif code == sqlite3.SQLITE_BUSY:
        advice = "another process holds it: end that process"
    elif code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        advice = "stop the daemon, keep the file, and restore a copy"
    else:
        advice = "check that the file and its directory can be read and written, and the system's log for disk errors"
    failure = CatalogFailed(f"{operation}: the catalog {path} failed ({error}): {advice}", disk_full=disk_full)
    failure.__cause__ = error
    return failure
