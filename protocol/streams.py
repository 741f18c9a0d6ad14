"""The streams of one connection at the server: numbers, states, refusals, and the window over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.constants import CHUNK_OVERHEAD_BYTES, NACKS_PER_RANGE_MAX, SIZE_UNKNOWN
from protocol.errors import ErrorCode
from protocol.exceptions import ProtocolError
from protocol.ranges import Span
from protocol.state import StreamState

_REFUSED_RANGES_MAX = 64
"""Ranges of a stream whose refusals are counted. Beyond, the oldest is forgotten: a hostile device costs no memory."""


@dataclass(slots=True)
class Stream:
    """One open stream. `size` is SIZE_UNKNOWN until it is declared."""

    state: StreamState
    size: int = SIZE_UNKNOWN
    next_expected_byte: int = 0
    unacknowledged_bytes: int = 0
    _refusals: dict[Span, int] | None = None

    def refuse(self, refused: Span) -> bool:
        """Count a refusal of this range. Returns whether it was one too many."""
        if self._refusals is None:
            self._refusals = {}
        refusals = self._refusals
        count = refusals.pop(refused, 0) + 1
        refusals[refused] = count
        if len(refusals) > _REFUSED_RANGES_MAX:
            del refusals[next(iter(refusals))]
        return count >= NACKS_PER_RANGE_MAX

    def clear_refusals(self, next_expected_byte: int, beyond: Sequence[Span]) -> None:
        """Forget the refusals of ranges that begin among these durable bytes."""
        if self._refusals:
            durable = (Span(0, next_expected_byte), *beyond)
            for refused in list(self._refusals):
                if any(span.start <= refused.start < span.end for span in durable):
                    del self._refusals[refused]


class Streams:
    """All streams of one connection. PROTOCOL.md §6 and §11."""

    __slots__ = ("_credit_bytes", "_highest", "_open", "_window_bytes", "streams_max", "unacknowledged_bytes")

    def __init__(self, streams_max: int, window_bytes: int) -> None:
        self.streams_max = streams_max
        self._window_bytes = window_bytes
        self._open: dict[int, Stream] = {}
        self._highest = 0
        self._credit_bytes = 0
        self.unacknowledged_bytes = 0

    def __contains__(self, number: int) -> bool:
        return number in self._open

    def __len__(self) -> int:
        return len(self._open)

    def get(self, number: int) -> Stream | None:
        """The open stream of that number."""
        return self._open.get(number)

    @property
    def has_work(self) -> bool:
        """Whether a stream waits for an answer."""
        return self.unacknowledged_bytes > 0 or any(
            stream.state is not StreamState.RECEIVING for stream in self._open.values()
        )

    def numbers(self) -> tuple[int, ...]:
        """The numbers of the open streams."""
        return tuple(self._open)

    def is_used(self, number: int) -> bool:
        """Whether the number belongs to a stream that is open or has ended."""
        return number <= self._highest

    def use(self, number: int) -> None:
        """Use the number up: it cannot be opened any more."""
        self._highest = max(self._highest, number)

    def open(self, number: int) -> bool:
        """Add a stream in state OPENING. Returns False when too many are open. Raises ProtocolError STREAM_REUSED."""
        if self.is_used(number):
            raise ProtocolError(
                ErrorCode.STREAM_REUSED, f"stream {number} is not above {self._highest}, the highest so far"
            )
        self._highest = number
        if len(self._open) >= self.streams_max:
            return False
        self._open[number] = Stream(StreamState.OPENING)
        return True

    def end(self, number: int) -> None:
        """Remove the stream; its bytes under way no longer count against the window."""
        stream = self._open.pop(number, None)
        if stream is not None:
            self.unacknowledged_bytes -= stream.unacknowledged_bytes

    def receive(self, stream: Stream, data_bytes: int, chunks: int) -> None:
        """Charge the window for chunks that arrived, `data_bytes` in all. Raises ProtocolError WINDOW_EXCEEDED."""
        charged_bytes = data_bytes + chunks * CHUNK_OVERHEAD_BYTES
        stream.unacknowledged_bytes += charged_bytes
        self.unacknowledged_bytes += charged_bytes
        if self.unacknowledged_bytes > self._window_bytes + self._credit_bytes:
            raise ProtocolError(
                ErrorCode.WINDOW_EXCEEDED,
                f"{self.unacknowledged_bytes} bytes are charged to the window, which has {self._window_bytes}",
            )

    def free_window(self, stream: Stream, charged_bytes: int) -> None:
        """Chunks that arrived were acknowledged or refused: what was charged for them no longer counts."""
        freed_bytes = min(charged_bytes, stream.unacknowledged_bytes)
        stream.unacknowledged_bytes -= freed_bytes
        self.unacknowledged_bytes -= freed_bytes

    def allow_resend(self, data_bytes: int) -> None:
        """Let refused bytes come again, in chunks of any size, even when the window is full; up to one window more."""
        # A byte by itself costs most.
        credit_bytes = data_bytes * (1 + CHUNK_OVERHEAD_BYTES)
        self._credit_bytes = min(self._credit_bytes + credit_bytes, self._window_bytes)
