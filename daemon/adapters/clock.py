"""Time: a monotonic clock for durations and a wall clock for dates."""

import time
from typing import Protocol


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
