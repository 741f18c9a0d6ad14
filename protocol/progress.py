"""How a frame under way grows, seen about once a second: what tells a slow one. PROTOCOL.md §9."""

SLOW_S = 1.0
"""A frame that was under way for this long between two looks came slowly: one of the largest chunks at 1 MB/s."""


class Progress:
    """The growth of one frame; `now` arguments are monotonic seconds."""

    __slots__ = ("_noted_bytes", "_noted_s", "rate_bytes_per_s", "under_way_s")

    def __init__(self, arrived_bytes: int, now: float) -> None:
        self._noted_bytes = arrived_bytes
        self._noted_s = now
        self.rate_bytes_per_s = 0.0
        """Between the last two looks."""
        self.under_way_s = 0.0

    @property
    def is_slow(self) -> bool:
        """Whether the frame came slowly, however fast its last bytes were."""
        return self.under_way_s >= SLOW_S

    def look(self, arrived_bytes: int, now: float, is_starved: bool) -> bool:
        """Note what has arrived of the frame by now. Returns whether that is the first time that it is slow.

        One that is starved keeps its rate: it could not grow.
        """
        was_slow, elapsed_s = self.is_slow, now - self._noted_s
        if elapsed_s > 0:
            self.under_way_s += elapsed_s
            if not is_starved:
                self.rate_bytes_per_s = (arrived_bytes - self._noted_bytes) / elapsed_s
        self.skip(arrived_bytes, now)
        return self.is_slow and not was_slow

    def skip(self, arrived_bytes: int, now: float) -> None:
        """Do not count the time since the last look."""
        self._noted_bytes, self._noted_s = arrived_bytes, now
