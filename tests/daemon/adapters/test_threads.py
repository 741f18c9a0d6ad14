"""Lanes: in order, in batches, on a thread of their own, reported on the event loop."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

from daemon.adapters.threads import Lane, Report, SystemThreads
from tests.support.deadlines import DEADLINE_S


class Worker:
    """Notes batches, threads and reports; each batch waits until `may_go_on`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.reported: list[int] = []
        self.threads: set[str] = set()
        self.report_threads: set[str] = set()
        self.started = threading.Event()
        self.may_go_on = threading.Event()

    def work(self, batch: list[int]) -> Report:
        self.batches.append(list(batch))
        self.threads.add(threading.current_thread().name)
        self.started.set()
        assert self.may_go_on.wait(DEADLINE_S)
        return self._report(batch)

    def _report(self, batch: list[int]) -> Callable[[], None]:
        def report() -> None:
            self.report_threads.add(threading.current_thread().name)
            self.reported.extend(batch)

        return report


def lane_of(worker: Worker) -> Lane[int]:
    return SystemThreads().lane("a lane", worker.work)


async def test_items_are_worked_on_in_order_and_reported_on_the_loop() -> None:
    worker = Worker()
    worker.may_go_on.set()
    lane = lane_of(worker)
    for number in range(1000):
        lane.put(number)
    await asyncio.wait_for(lane.close(), DEADLINE_S)
    assert worker.reported == list(range(1000))
    assert [number for batch in worker.batches for number in batch] == worker.reported
    assert worker.threads == {"a lane"}
    assert worker.report_threads == {threading.current_thread().name}


async def test_what_is_queued_meanwhile_is_one_batch() -> None:
    worker = Worker()
    lane = lane_of(worker)
    lane.put(0)
    assert await asyncio.to_thread(worker.started.wait, DEADLINE_S)
    for number in range(1, 6):
        lane.put(number)
    worker.may_go_on.set()
    await asyncio.wait_for(lane.close(), DEADLINE_S)
    assert worker.batches == [[0], [1, 2, 3, 4, 5]]


async def test_closing_an_idle_lane_ends_its_thread() -> None:
    worker = Worker()
    lane = lane_of(worker)
    await asyncio.wait_for(lane.close(), DEADLINE_S)
    assert worker.batches == []
    assert "a lane" not in {thread.name for thread in threading.enumerate()}


async def test_closing_waits_for_what_is_queued_even_if_the_waiter_gives_up() -> None:
    worker = Worker()
    lane = lane_of(worker)
    lane.put(1)
    closing = asyncio.ensure_future(lane.close())
    assert await asyncio.to_thread(worker.started.wait, DEADLINE_S)
    closing.cancel()
    worker.may_go_on.set()
    await asyncio.wait_for(lane.close(), DEADLINE_S)
    assert worker.reported == [1]


async def test_lanes_put_into_lanes() -> None:
    worker = Worker()
    worker.may_go_on.set()
    second = lane_of(worker)

    def pass_on(batch: list[int]) -> Report:
        for number in batch:
            second.put(number)
        return lambda: None

    first = SystemThreads().lane("first", pass_on)
    for number in range(100):
        first.put(number)
    await first.close()
    await asyncio.wait_for(second.close(), DEADLINE_S)
    assert worker.reported == list(range(100))


FAILING = """
import asyncio
import subprocess
import sys
from daemon.adapters.threads import SystemThreads

def work(batch):
    raise MemoryError("no memory")

async def main():
    SystemThreads().lane("a lane", work).put(1)
    await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


def test_work_that_fails_in_a_way_nobody_foresaw_ends_the_process_instead_of_the_thread_alone() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 1
    assert "thread a lane failed: MemoryError('no memory')" in ended.stderr
