"""The pulse: its lateness by a fake clock, and one beat on a real event loop."""

import asyncio
from collections.abc import Callable

import pytest

from daemon.adapters.clock import SystemClock
from daemon.process.pulse import Pulse
from tests.support.deadlines import DEADLINE_S


class Call:
    def __init__(self, due_s: float, callback: Callable[[], None]) -> None:
        self.due_s = due_s
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A clock and a timer: time passes only when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.calls: list[Call] = []

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        raise AssertionError("durations are measured by the monotonic clock")

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Call:
        self.calls.append(Call(self.now_s + delay, callback))
        return self.calls[-1]

    def run_next(self, late_s: float = 0.0) -> None:
        call = self.calls.pop(0)
        assert not call.cancelled
        self.now_s = call.due_s + late_s
        call.callback()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def pulse(loop: Loop, pauses: list[float]) -> Pulse:
    return Pulse(loop, loop, pauses.append, interval_s=0.5)


def test_it_reports_how_late_each_beat_came(loop: Loop, pulse: Pulse, pauses: list[float]) -> None:
    pulse.start()
    for late_s in (0.0, 0.25, 4.0):
        loop.run_next(late_s)
    assert pauses == [0.0, 0.25, 4.0]


def test_one_pause_is_counted_once(loop: Loop, pulse: Pulse, pauses: list[float]) -> None:
    pulse.start()
    loop.run_next(10.0)
    loop.run_next()
    assert pauses == [10.0, 0.0]


def test_a_timer_that_fires_early_is_not_late(loop: Loop, pulse: Pulse, pauses: list[float]) -> None:
    pulse.start()
    loop.run_next(-0.25)
    assert pauses == [0.0]


def test_beats_increase_while_the_loop_runs(loop: Loop, pulse: Pulse) -> None:
    assert pulse.beats == 0
    pulse.start()
    loop.run_next()
    loop.run_next()
    assert pulse.beats == 2


def test_only_one_beat_is_scheduled_at_a_time(loop: Loop, pulse: Pulse) -> None:
    pulse.start()
    loop.run_next()
    assert [call.due_s for call in loop.calls] == [loop.now_s + 0.5]


def test_it_continues_when_the_observer_fails(loop: Loop) -> None:
    def fail(pause_s: float) -> None:
        raise ValueError(pause_s)

    pulse = Pulse(loop, loop, fail)
    pulse.start()
    for beats in (1, 2):
        with pytest.raises(ValueError, match=r"0\.0"):
            loop.run_next()
        assert pulse.beats == beats


def test_a_stopped_pulse_no_longer_beats(loop: Loop, pulse: Pulse) -> None:
    pulse.start()
    loop.run_next()
    pulse.stop()
    assert [call.cancelled for call in loop.calls] == [True]


def test_stopping_twice_or_before_the_start_is_harmless(loop: Loop, pulse: Pulse) -> None:
    pulse.stop()
    pulse.start()
    pulse.stop()
    pulse.stop()
    assert pulse.beats == 0


def test_it_can_be_started_again(loop: Loop, pulse: Pulse) -> None:
    pulse.start()
    pulse.stop()
    loop.calls.clear()
    pulse.start()
    loop.run_next()
    assert pulse.beats == 1


def test_a_second_start_is_refused(loop: Loop, pulse: Pulse) -> None:
    pulse.start()
    with pytest.raises(RuntimeError, match="beats already"):
        pulse.start()
    assert len(loop.calls) == 1


async def test_it_beats_on_a_real_event_loop() -> None:
    beaten = asyncio.Event()
    pulse = Pulse(asyncio.get_running_loop(), SystemClock(), lambda _: beaten.set(), interval_s=0.001)
    pulse.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            await beaten.wait()
    finally:
        pulse.stop()
    assert pulse.beats >= 1
