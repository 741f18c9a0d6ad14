"""How long to wait before trying again, and when to stop trying. PROTOCOL.md §12."""

from collections.abc import Callable

from device.exceptions import UnreachableError

BASE_S = 1.0
"""The first wait is between 0 and this: a link that broke for a moment is soon used again, and a fleet spreads out."""

CAP_S = 60.0
"""No wait is longer: after an outage of hours a device is back within a minute of its server."""

QUICK_S = 0.1
"""Half a round trip of a mobile network."""

_EXPONENT_MAX = 6  # 64 s are above the cap


class Backoff:
    """Exponential back-off with full jitter: the n-th wait is uniform between 0 and min(60, 2**n) seconds.

    `random` returns numbers in [0, 1).
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._count = 0

    def next_s(self) -> float:
        """The next wait in seconds."""
        ceiling_s = min(CAP_S, BASE_S * (1 << self._count))
        self._count = min(self._count + 1, _EXPONENT_MAX)
        return self._random() * ceiling_s

    def after_s(self, wait_ms: int) -> float:
        """The next wait in seconds, where the server asks for `wait_ms` at least (R12.7)."""
        return wait_ms / 1000 + self.next_s()

    def quick_s(self) -> float:
        """The wait after a good connection broke (R12.9): spreads a fleet that was cut off at once."""
        return self._random() * QUICK_S

    def reset(self) -> None:
        """There was progress: start with short waits again."""
        self._count = 0


class Patience:
    """When to give a piece of work up.

    After `attempts_max` interruptions in a row, or `deadline_s` seconds, without progress; None is without limit.
    """

    def __init__(self, attempts_max: int | None, deadline_s: float | None, clock: Callable[[], float]) -> None:
        self._attempts_max = attempts_max
        self._deadline_s = deadline_s
        self._clock = clock
        self._attempts = 0
        self._since = clock()

    def progressed(self) -> None:
        """There was progress: start to count again, without the attempt under way."""
        self._attempts = -1
        self._since = self._clock()

    def interrupted(self, detail: str, wait_s: float) -> None:
        """The work was interrupted, and can continue in `wait_s`. Raises UnreachableError at the limit."""
        self._attempts += 1
        if self._attempts_max is not None and self._attempts >= self._attempts_max:
            raise UnreachableError(f"{detail}; given up after {self._attempts} attempts without progress")
        if self._deadline_s is not None and self._clock() + wait_s - self._since > self._deadline_s:
            raise UnreachableError(f"{detail}; given up after {self._deadline_s:g} s without progress")
