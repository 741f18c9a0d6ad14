"""When to send PING on a quiet connection, and when to take it for dead. PROTOCOL.md §12.1."""

import math

TICK_S = 1.0
"""How often to look at the clock: `keepalive_s` is a whole number of seconds."""

DEAD_AFTER_INTERVALS = 2
"""R12.4. The server sends something every `keepalive_s`, also during a slow chunk, so one frame may be lost or late."""


class Keepalive:
    """The silence of one connection; `interval_s` is the `keepalive_s` of WELCOME. Times are monotonic seconds."""

    def __init__(self, now_s: float) -> None:
        self._heard_s = self._pinged_s = now_s
        self.interval_s = math.inf

    def heard(self, now_s: float) -> None:
        """Bytes arrived; any byte is a sign of life."""
        self._heard_s = now_s

    def silence_s(self, now_s: float) -> float:
        """How long nothing has arrived."""
        return now_s - self._heard_s

    def is_dead(self, now_s: float) -> bool:
        """Whether to give the connection up."""
        return self.silence_s(now_s) >= DEAD_AFTER_INTERVALS * self.interval_s

    def take_ping(self, now_s: float) -> bool:
        """Whether to send PING now; True at most once an interval."""
        if now_s - max(self._heard_s, self._pinged_s) < self.interval_s:
            return False
        self._pinged_s = now_s
        return True
