"""How long to wait before trying again, and when to stop trying. PROTOCOL.md §12."""

from collections.abc import Callable

from device.exceptions import UnreachableError

BASE_S = 1.0
"""The first wait is between 0 and this: a link that blinked is back at once, and not all devices come together."""

CAP_S = 60.0
"""No wait is longer: a device that was cut off for hours is back within a minute of its server."""

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

    def quick_s(self) -> float:
        """The wait before the one attempt that is free: enough to part the devices of a fleet that were cut at once."""
        return self._random() * QUICK_S

    def reset(self) -> None:
        """Something went well: begin with short waits again."""
        self._count = 0


class Patience:
    """When one piece of work is to be given up.

    `attempts_max` interruptions in a row, or `deadline_s` seconds, without any progress; None is without limit.
    """

    def __init__(self, attempts_max: int | None, deadline_s: float | None, clock: Callable[[], float]) -> None:
        self._attempts_max = attempts_max
        self._deadline_s = deadline_s
        self._clock = clock
        self._attempts = 0
        self._since = clock()

    def progressed(self) -> None:
        """The work went on: count anew, without the attempt that is under way."""
        self._attempts = -1
        self._since = self._clock()

    def interrupted(self, detail: str, wait_s: float) -> None:
        """The work was interrupted and would go on in `wait_s`. Raises UnreachableError when that is too much."""
        self._attempts += 1
        if self._attempts_max is not None and self._attempts >= self._attempts_max:
            raise UnreachableError(f"{detail}; given up after {self._attempts} attempts without progress")
        if self._deadline_s is not None and self._clock() + wait_s - self._since > self._deadline_s:
            raise UnreachableError(f"{detail}; given up, as nothing went on for {self._deadline_s:g} s")
