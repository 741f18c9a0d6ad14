"""The event loop's pulse: a periodic call runs as late as the loop was busy with something else."""

from collections.abc import Callable
from typing import Protocol

from daemon.adapters.clock import Clock

INTERVAL_S = 0.02
"""A pause that begins between two beats is measured up to this much too short. Fifty beats a second cost less than a
thousandth of a core."""


class Cancellable(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...


class Timer(Protocol):
    """What the pulse needs of an event loop."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable:
        """Call back once, `delay` seconds from now."""
        ...


class Pulse:
    """Calls `observe` at each beat with the seconds that it came late. Start and stop it on the loop's thread."""

    __slots__ = ("_beats", "_clock", "_due_s", "_interval_s", "_next", "_observe", "_timer")

    def __init__(
        self, timer: Timer, clock: Clock, observe: Callable[[float], None], interval_s: float = INTERVAL_S
    ) -> None:
        self._timer = timer
        self._clock = clock
        self._observe = observe
        self._interval_s = interval_s
        self._beats = 0
        self._due_s = 0.0
        self._next: Cancellable | None = None

    @property
    def beats(self) -> int:
        """Beats so far. The loop is alive while this grows: compare two readings."""
        return self._beats

    def start(self) -> None:
        """The first beat is due one interval from now. Raises RuntimeError when the pulse beats already."""
        if self._next is not None:
            raise RuntimeError("the pulse beats already: stop it before you start it again")
        self._schedule()

    def stop(self) -> None:
        """End the beats; harmless when none is due."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _schedule(self) -> None:
        self._due_s = self._clock.monotonic_s() + self._interval_s
        self._next = self._timer.call_later(self._interval_s, self._beat)

    def _beat(self) -> None:
        # Timers of whole milliseconds may run a little early.
        late_s = max(0.0, self._clock.monotonic_s() - self._due_s)
        self._beats += 1
        self._schedule()
        self._observe(late_s)
