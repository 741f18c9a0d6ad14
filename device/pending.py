"""The byte ranges of an upload that are still to be sent. PROTOCOL.md §8 and §9."""

from collections.abc import Iterable

from protocol.ranges import Span


class Pending:
    """Ranges to send, lowest first, so that gaps close before new ones open."""

    __slots__ = ("_spans",)

    def __init__(self, size: int, next_expected_byte: int, beyond: Iterable[Span]) -> None:
        self._spans: list[Span] = []
        start = next_expected_byte
        for held in sorted(beyond):
            if start < min(held.start, size):
                self._spans.append(Span(start, min(held.start, size)))
            start = max(start, held.end)
        if start < size:
            self._spans.append(Span(start, size))

    def __bool__(self) -> bool:
        return bool(self._spans)

    @property
    def total_bytes(self) -> int:
        """How many bytes are still to be sent."""
        return sum(span.end - span.start for span in self._spans)

    def take(self, bytes_max: int) -> Span:
        """Take out the lowest bytes, at most `bytes_max`. Raises IndexError if there are none."""
        lowest = self._spans[0]
        if lowest.end - lowest.start <= bytes_max:
            return self._spans.pop(0)
        taken = Span(lowest.start, lowest.start + bytes_max)
        self._spans[0] = Span(taken.end, lowest.end)
        return taken

    def add(self, refused: Span) -> None:
        """Send these bytes again."""
        merged: list[Span] = []
        for span in sorted([*self._spans, refused]):
            if merged and span.start <= merged[-1].end:
                merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
            else:
                merged.append(span)
        self._spans = merged
