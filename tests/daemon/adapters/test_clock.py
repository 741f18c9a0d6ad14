"""The machine's clocks, in the units that they promise."""

import time

from daemon.adapters.clock import SystemClock


def test_the_wall_clock_is_unix_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= SystemClock().wall_ms() <= time.time_ns() // 1_000_000


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_s() for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[0] <= time.monotonic()
