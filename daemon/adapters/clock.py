"""Time as the daemon sees it: one monotonic clock for durations, one wall clock for dates."""

import time
from typing import Protocol


class Clock(Protocol):
    """What a consumer may ask of time."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back. For durations and deadlines."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds. For dates that are stored or shown; may be set by an operator."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
