"""File calls on a lane, awaited."""

import pytest

from daemon.storage.local.calls import Call, ask, call


class HeldLane:
    """A lane whose one call the test lets run."""

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self.queued: list[Call] = []

    def put(self, item: Call) -> None:
        self.queued.append(item)
        if self._at_once:
            self.finish()

    def finish(self) -> None:
        item = self.queued.pop()
        item.work()
        item.report()

    async def close(self) -> None:
        return


def no_disk() -> int:
    raise OSError("no disk")


async def test_the_caller_gets_the_result() -> None:
    assert await call(HeldLane(at_once=True), lambda: 7) == 7


async def test_the_caller_gets_the_failure() -> None:
    with pytest.raises(OSError, match="no disk"):
        await call(HeldLane(at_once=True), no_disk)


async def test_the_result_of_a_cancelled_call_is_discarded() -> None:
    lane = HeldLane()
    discarded: list[int] = []
    ask(lane, lambda: 7, discarded.append).cancel()
    lane.finish()
    assert discarded == [7]


async def test_the_failure_of_a_cancelled_call_is_ignored() -> None:
    lane = HeldLane()
    discarded: list[int] = []
    ask(lane, no_disk, discarded.append).cancel()
    lane.finish()
    ask(lane, lambda: 7).cancel()
    lane.finish()
    assert discarded == []


def broken() -> int:
    raise MemoryError("no memory")


async def test_the_caller_gets_an_unforeseen_failure_too() -> None:
    with pytest.raises(MemoryError):
        await call(HeldLane(at_once=True), broken)
