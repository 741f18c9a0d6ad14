"""Tasks with an owner: awaited, cancelled, and reported when they fail."""

import asyncio

import pytest

from daemon.tasks import Tasks, background
from tests.support.deadlines import DEADLINE_S


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def tasks(failures: list[BaseException]) -> Tasks:
    return Tasks(failures.append)


async def fail() -> None:
    raise ValueError("unforeseen")


async def test_wait_returns_when_all_tasks_are_done(tasks: Tasks, failures: list[BaseException]) -> None:
    go_on = asyncio.Event()
    done: list[int] = []

    async def work(number: int) -> None:
        await go_on.wait()
        done.append(number)

    tasks.spawn(work(1))
    tasks.spawn(work(2))
    assert len(tasks) == 2
    go_on.set()
    await asyncio.wait_for(tasks.wait(), DEADLINE_S)
    assert sorted(done) == [1, 2]
    assert len(tasks) == 0
    assert failures == []


async def test_wait_includes_tasks_that_tasks_start(tasks: Tasks) -> None:
    done: list[str] = []

    async def child() -> None:
        await asyncio.sleep(0)
        done.append("child")

    async def parent() -> None:
        tasks.spawn(child())

    tasks.spawn(parent())
    await asyncio.wait_for(tasks.wait(), DEADLINE_S)
    assert done == ["child"]


async def test_a_failure_is_reported_and_affects_no_other_task(tasks: Tasks, failures: list[BaseException]) -> None:
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    tasks.spawn(fail())
    tasks.spawn(work())
    await asyncio.wait_for(tasks.wait(), DEADLINE_S)
    assert [str(failure) for failure in failures] == ["unforeseen"]
    assert done.is_set()


async def test_the_tasks_own_handler_gets_the_failure_first(tasks: Tasks, failures: list[BaseException]) -> None:
    heard: list[tuple[str, int]] = []
    tasks.spawn(fail(), lambda error: heard.append((str(error), len(failures))))
    await asyncio.wait_for(tasks.wait(), DEADLINE_S)
    assert heard == [("unforeseen", 0)]
    assert len(failures) == 1


async def test_cancelling_ends_tasks_and_is_not_a_failure(tasks: Tasks, failures: list[BaseException]) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    tasks.spawn(work())
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.cancel(), DEADLINE_S)
    assert ended == ["cleaned up"]
    assert len(tasks) == 0
    assert failures == []


class Forever:
    """Work that never ends."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def test_background_work_ends_with_the_body() -> None:
    works = [Forever(), Forever()]
    async with background(*(work.run() for work in works)):
        for work in works:
            await asyncio.wait_for(work.started.wait(), DEADLINE_S)
            assert not work.ended
    assert all(work.ended for work in works)


async def test_failing_background_work_ends_the_body() -> None:
    other = Forever()
    with pytest.raises(ValueError, match="unforeseen"):
        async with asyncio.timeout(DEADLINE_S), background(other.run(), fail()):
            await asyncio.Event().wait()
    assert other.ended


async def test_a_failing_body_ends_background_work() -> None:
    work = Forever()
    with pytest.raises(KeyError):
        async with background(work.run()):
            await asyncio.wait_for(work.started.wait(), DEADLINE_S)
            raise KeyError
    assert work.ended


async def test_several_failures_are_raised_together() -> None:
    with pytest.raises(BaseExceptionGroup) as failures:
        async with asyncio.timeout(DEADLINE_S), background(fail(), fail()):
            await asyncio.Event().wait()
    assert [type(failure) for failure in failures.value.exceptions] == [ValueError, ValueError]
