"""Time: a monotonic clock for durations and a wall clock for dates."""

import time
from typing import Protocol

PAUSE_S = 2.0
"""A longer time without a look at the clock is a pause. The sweep over the connections looks at least once a second."""


class Clock(Protocol):
    """The clocks that the daemon uses."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary point; never goes back. For durations and deadlines."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds. For dates that are stored or shown; may jump when the clock is set."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class RunningClock:
    """A clock whose monotonic time stands still while the process does: stopped, or on a host that is.

    What others sent during such a pause lies unread in the sockets, so the silence was not theirs.
    """

    __slots__ = ("_clock", "_paused_s", "_seen_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen_s = clock.monotonic_s()
        self._paused_s = 0.0

    def monotonic_s(self) -> float:
        now_s = self._clock.monotonic_s()
        passed_s, self._seen_s = now_s - self._seen_s, now_s
        if passed_s > PAUSE_S:
            self._paused_s += passed_s
        return now_s - self._paused_s

    def wall_ms(self) -> int:
        return self._clock.wall_ms()
