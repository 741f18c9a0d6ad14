"""The machine's clocks, in the units that they promise."""

import time

from daemon.adapters.clock import PAUSE_S, RunningClock, SystemClock
from tests.support.fake_machine import FakeClock


def test_the_wall_clock_is_unix_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= SystemClock().wall_ms() <= time.time_ns() // 1_000_000


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_s() for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[0] <= time.monotonic()


def test_a_running_clock_follows_its_clock_while_it_is_looked_at() -> None:
    clock = FakeClock()
    running = RunningClock(clock)
    began_s = running.monotonic_s()
    for _ in range(100):
        clock.pass_s(PAUSE_S)
        running.monotonic_s()
    assert running.monotonic_s() - began_s == 100 * PAUSE_S
    assert running.wall_ms() == clock.wall_ms()


def test_a_running_clock_leaves_out_a_pause_and_goes_on_behind_it() -> None:
    clock = FakeClock()
    running = RunningClock(clock)
    began_s = running.monotonic_s()
    clock.pass_s(3600)
    assert running.monotonic_s() == began_s
    clock.pass_s(1)
    assert running.monotonic_s() == began_s + 1
