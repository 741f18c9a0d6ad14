"""Room on the disk: figures, problems, and failures, which are logged once."""

import asyncio

import pytest

from daemon.ingest.free_space import OVERDUE_S, Disk
from daemon.storage.interface import Space
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_machine import CapturedLog, FakeClock

FLOOR = 100


class Volume:
    def __init__(self) -> None:
        self.answer: Space | OSError = Space(total_bytes=1000, free_bytes=400)
        self.asked = asyncio.Condition()
        self.times = 0

    async def space(self) -> Space:
        async with self.asked:
            self.times += 1
            self.asked.notify_all()
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


@pytest.fixture
async def volume() -> Volume:
    return Volume()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log() -> CapturedLog:
    return CapturedLog()


@pytest.fixture
def disk(volume: Volume, clock: FakeClock, log: CapturedLog) -> Disk:
    return Disk(volume, clock, log.logger)


def test_before_the_first_measurement_nothing_is_promised(disk: Disk) -> None:
    assert (disk.free_bytes, disk.total_bytes) == (0, 0)
    assert "not measured yet" in str(disk.problem(0))


async def test_a_measurement_is_what_the_volume_says(disk: Disk) -> None:
    await disk.measure()
    assert (disk.free_bytes, disk.total_bytes) == (400, 1000)
    assert disk.problem(FLOOR) is None


async def test_below_the_floor_is_a_problem_until_there_is_room(disk: Disk, volume: Volume) -> None:
    volume.answer = Space(1000, FLOOR - 1)
    await disk.measure()
    assert str(disk.problem(FLOOR)).startswith("99 bytes are free, 100 must stay free")
    volume.answer = Space(1000, FLOOR)
    await disk.measure()
    assert disk.problem(FLOOR) is None


async def test_room_taken_between_measurements_counts(disk: Disk) -> None:
    await disk.measure()
    disk.free_bytes -= 350
    assert disk.problem(FLOOR) is not None
    await disk.measure()
    assert disk.free_bytes == 400


async def test_a_failure_keeps_the_figures_and_is_logged_once_per_change(
    disk: Disk, volume: Volume, log: CapturedLog
) -> None:
    await disk.measure()
    volume.answer = OSError(5, "Input/output error")
    await disk.measure()
    await disk.measure()
    assert disk.free_bytes == 400
    assert "Input/output error" in str(disk.problem(FLOOR))
    assert log.at("error") == ["disk not measured"]
    volume.answer = OSError("gone")
    await disk.measure()
    assert "gone" in str(disk.problem(FLOOR))
    assert len(log.at("error")) == 2
    volume.answer = Space(1000, 300)
    await disk.measure()
    await disk.measure()
    assert disk.problem(FLOOR) is None
    assert log.at("info") == ["disk measured again"]


async def test_a_disk_that_hangs_is_a_problem(disk: Disk, clock: FakeClock) -> None:
    await disk.measure()
    clock.pass_s(OVERDUE_S)
    assert disk.problem(FLOOR) is None
    clock.pass_s(1)
    assert "not answered for 11 s" in str(disk.problem(FLOOR))


async def test_it_measures_until_cancelled(disk: Disk, volume: Volume) -> None:
    running = asyncio.ensure_future(disk.run(interval_s=0))
    async with asyncio.timeout(DEADLINE_S), volume.asked:
        await volume.asked.wait_for(lambda: volume.times >= 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert disk.free_bytes == 400
