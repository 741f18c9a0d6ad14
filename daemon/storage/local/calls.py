"""Calls on a lane, awaited."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from daemon.adapters.threads import Lane, Report

Result = TypeVar("Result")


class Call(Protocol):
    """`work` runs on the lane's thread, then `report` on the event loop."""

    def work(self) -> None: ...

    def report(self) -> None: ...


@dataclass(slots=True)
class _Awaited(Generic[Result]):
    run: Callable[[], Result]
    future: "asyncio.Future[Result]"
    discard: Callable[[Result], None] | None
    results: list[Result] = field(default_factory=list)
    error: Exception | None = None

    def work(self) -> None:
        try:
            self.results.append(self.run())
        except Exception as error:  # noqa: BLE001 - it is the awaiting caller's, who must not wait for ever
            self.error = error

    def report(self) -> None:
        if self.future.cancelled():
            if self.discard is not None and self.results:
                self.discard(self.results[0])
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.results[0])


def ask(
    lane: Lane[Call], run: Callable[[], Result], discard: Callable[[Result], None] | None = None
) -> "asyncio.Future[Result]":
    """What `run` will return, or what it raises; `discard` gets its result when the future was cancelled."""
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    lane.put(_Awaited(run, future, discard))
    return future


async def call(lane: Lane[Call], run: Callable[[], Result], discard: Callable[[Result], None] | None = None) -> Result:
    """`ask`, awaited: raises OSError."""
    return await ask(lane, run, discard)


def work_through(batch: Sequence[Call]) -> Report:
    """The work of a lane of nothing but calls."""
    for each in batch:
        each.work()
    return lambda: run_all([each.report for each in batch])


def run_all(reports: Sequence[Report]) -> None:
    for report in reports:
        report()
