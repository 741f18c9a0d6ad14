"""How much to hand to the link at a time, learnt from how fast it carries. PROTOCOL.md §7 and §11."""

CHUNK_BYTES_FIRST = 16 * 1024
"""Before anything is known: an eighth of a second at 1 Mbit/s, and no great cost on a fast link for one sample."""

CHUNK_BYTES_MIN = 4 * 1024
"""Smaller ones would spend more than 1 % of the link on headers."""

CHUNK_S = 1 / 64
"""The time that a chunk takes: what has arrived of one when the link breaks has to be sent again, half on average."""

SAMPLE_S = 1.0
"""How long a slow link is watched before its rate is believed: a lost segment holds all that follow it up for less."""

SAMPLE_CHUNKS = 64
"""A fast link has shown its rate sooner: as CHUNK_S has it, a link that keeps its rate carries these in a second."""

UNSENT_CHUNKS = 2
"""Chunks in the socket that TCP has not sent yet: one goes out while the next is made."""

HEADER_BYTES_MAX = 64
"""Room for each chunk's prefix and header, so that a socket with room for a chunk takes all of it."""


class Pace:
    """The rate at which the server takes what is sent, and the sizes that follow from it.

    It outlives connections: the next one is likely to be as fast as the last.
    """

    def __init__(self, chunk_bytes_max: int) -> None:
        self._chunk_bytes_max = chunk_bytes_max
        self._answered_bytes = 0
        self._busy_s = 0.0
        self._looked_s: float | None = None
        self.chunk_bytes = min(CHUNK_BYTES_FIRST, chunk_bytes_max)

    @property
    def unsent_bytes(self) -> int:
        """How much may wait in the socket for TCP to send it; what does is lost when the connection breaks."""
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
