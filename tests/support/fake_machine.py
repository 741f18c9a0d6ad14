"""Fakes of what is outside the process: time and randomness that the test sets, logs that it reads."""

import asyncio
import logging

import structlog
from structlog.stdlib import BoundLogger
from structlog.testing import LogCapture
from structlog.typing import EventDict

DAY_S = 24 * 3600
NOW_MS = 1_800_000_000_000


class FakeClock:
    """A clock that moves only by `pass_s`."""

    def __init__(self, wall_ms: int = NOW_MS) -> None:
        self.now_ms = wall_ms
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return self.now_ms

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.now_ms += int(seconds * 1000)


class FakeEntropy:
    """Entropy that always gives the upper bound, and zeros."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []
        self.asked_thrice = asyncio.Event()

    def bytes(self, count: int) -> bytes:
        return bytes(count)

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        if len(self.asked) == 3:
            self.asked_thrice.set()
        return high


class CapturedLog:
    """A logger and its lines."""

    def __init__(self) -> None:
        self._capture = LogCapture()
        self.logger: BoundLogger = structlog.wrap_logger(
            logging.Logger("captured"),
            processors=[self._capture],
            wrapper_class=BoundLogger,
            cache_logger_on_first_use=True,
        )

    @property
    def lines(self) -> list[EventDict]:
        return list(self._capture.entries)

    def at(self, level: str) -> list[str]:
        """The events at a level."""
        return [line["event"] for line in self.lines if line["log_level"] == level]
