"""How much to send at a time, from the measured rate of the link. PROTOCOL.md §7 and §11."""

CHUNK_BYTES_FIRST = 16 * 1024
"""Before the first measurement: an eighth of a second at 1 Mbit/s, and cheap enough on a fast link."""

CHUNK_BYTES_MIN = 4 * 1024
"""With smaller chunks, headers would take more than 1 % of the link."""

CHUNK_S = 1 / 64
"""The time that one chunk takes. A chunk cut off by a break is sent again, and half of it had arrived on average."""

SAMPLE_S = 1.0
"""How long to measure a slow link: longer than a lost segment holds up those behind it."""

SAMPLE_CHUNKS = 64
"""A fast link is measured sooner, by this many chunks. At the rate of CHUNK_S they take a second."""

UNSENT_CHUNKS = 2
"""Chunks in the socket that TCP has not sent: one goes out while the next is made."""

HEADER_BYTES_MAX = 64
"""Room for each chunk's prefix and header, so that a socket with room for a chunk takes all of it."""


class Pace:
    """The rate at which the server takes bytes, and the sizes that follow from it.

    It outlives connections, since the next is likely to be as fast as the last.
    """

    def __init__(self, chunk_bytes_max: int) -> None:
        self._chunk_bytes_max = chunk_bytes_max
        self._answered_bytes = 0
        self._busy_s = 0.0
        self._looked_s: float | None = None
        self.chunk_bytes = min(CHUNK_BYTES_FIRST, chunk_bytes_max)

    @property
    def unsent_bytes(self) -> int:
        """How much may wait in the socket: bytes that wait there are lost when the connection breaks."""
        return UNSENT_CHUNKS * (self.chunk_bytes + HEADER_BYTES_MAX)

    def begin(self, now_s: float) -> None:
        """Sending starts after a pause, which does not count."""
        self._looked_s = now_s

    def answered(self, count: int, now_s: float) -> None:
        """The server has acknowledged or refused `count` more bytes."""
        if self._looked_s is None:
            return
        self._answered_bytes += count
        self._busy_s += now_s - self._looked_s
        self._looked_s = now_s
        if self._busy_s < SAMPLE_S and (self._answered_bytes < SAMPLE_CHUNKS * self.chunk_bytes or not self._busy_s):
            return
        wanted = int(self._answered_bytes / self._busy_s * CHUNK_S)
        whole = wanted // CHUNK_BYTES_MIN * CHUNK_BYTES_MIN
        self.chunk_bytes = min(max(whole, CHUNK_BYTES_MIN), self._chunk_bytes_max)
        self._answered_bytes, self._busy_s = 0, 0.0
