"""Sets of byte ranges, each with the CRC32C of its bytes. PROTOCOL.md §9."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from protocol.checksum import crc32c_combine


class Span(NamedTuple):
    """Bytes from `start` up to but not including `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DigestedRange:
    """Bytes from `start` up to but not including `end`, and their CRC32C."""

    start: int
    end: int
    crc32c: int


class RangeSet:
    """Ordered ranges with gaps between them. Ranges that meet are joined, and so are their CRCs."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: tuple[DigestedRange, ...] = ()) -> None:
        self._ranges = list(ranges)

    def __iter__(self) -> Iterator[DigestedRange]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def snapshot(self) -> tuple[DigestedRange, ...]:
        """The current ranges as a value."""
        return tuple(self._ranges)

    @property
    def next_expected_byte(self) -> int:
        """The protocol's N: every byte below it is in the set."""
        return self._ranges[0].end if self._ranges and self._ranges[0].start == 0 else 0

    @property
    def total_bytes(self) -> int:
        """How many bytes are in the set."""
        return sum(each.end - each.start for each in self._ranges)

    @property
    def highest_byte(self) -> int:
        """One above the last byte in the set; 0 for the empty set."""
        return self._ranges[-1].end if self._ranges else 0

    def beyond_next(self) -> list[DigestedRange]:
        """The ranges above N, in order."""
        return self._ranges[1:] if self._ranges and self._ranges[0].start == 0 else list(self._ranges)

    def prefix_crc32c(self) -> int:
        """CRC32C of the bytes below N."""
        return self._ranges[0].crc32c if self._ranges and self._ranges[0].start == 0 else 0

    def tail(self, start: int) -> DigestedRange | None:
        """The range that ends exactly at `start`, which bytes from `start` on would extend."""
        index = bisect_right(self._ranges, start, key=_start) - 1
        candidate = self._ranges[index] if index >= 0 else None
        return candidate if candidate is not None and candidate.end == start else None

    def missing(self, start: int, end: int) -> list[Span]:
        """The parts of [start, end) that are not in the set, in order."""
        gaps: list[Span] = []
        index = max(bisect_right(self._ranges, start, key=_start) - 1, 0)
        while index < len(self._ranges) and self._ranges[index].start < end:
            held = self._ranges[index]
            if held.start > start:
                gaps.append(Span(start, held.start))
            start = max(start, held.end)
            index += 1
        if start < end:
            gaps.append(Span(start, end))
        return gaps

    def gaps_after(self, start: int, end: int) -> int:
        """How many gaps there would be below the highest byte after adding [start, end)."""
        joined = [each for each in self._ranges if each.end >= start and each.start <= end]
        low = min(start, joined[0].start) if joined else start
        separate = len(self._ranges) - len(joined) + 1
        touches_zero = low == 0 or (bool(self._ranges) and self._ranges[0].start == 0)
        return separate - 1 if touches_zero else separate

    def extend(self, start: int, end: int, crc32c: int) -> None:
        """Extend the range that ends at `start` to `end`. `crc32c` covers the whole extended range.

        Raises KeyError when no range ends at `start`.
        """
        index = bisect_right(self._ranges, start, key=_start) - 1
        if index < 0 or self._ranges[index].end != start:
            raise KeyError(start)
        self._ranges[index] = DigestedRange(self._ranges[index].start, end, crc32c)
        self._join_next(index)

    def add(self, start: int, end: int, crc32c: int) -> None:
        """Add [start, end), which must not overlap the set. `crc32c` covers these bytes."""
        index = bisect_right(self._ranges, start, key=_start)
        self._ranges.insert(index, DigestedRange(start, end, crc32c))
        self._join_next(index)
        if index:
            self._join_next(index - 1)

    def _join_next(self, index: int) -> None:
        if index + 1 < len(self._ranges) and self._ranges[index].end == self._ranges[index + 1].start:
            low, high = self._ranges[index], self._ranges.pop(index + 1)
            joined = crc32c_combine(low.crc32c, high.crc32c, high.end - high.start)
            self._ranges[index] = DigestedRange(low.start, high.end, joined)


def _start(each: DigestedRange) -> int:
    return each.start
