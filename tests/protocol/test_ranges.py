"""Sets of byte ranges, each with its CRC."""

import pytest

from protocol.checksum import crc32c
from protocol.ranges import DigestedRange, RangeSet, Span

FILE = bytes(range(100))


def digested(start: int, end: int) -> DigestedRange:
    return DigestedRange(start, end, crc32c(FILE[start:end]))


def ranges(*spans: tuple[int, int]) -> RangeSet:
    return RangeSet(tuple(digested(*span) for span in spans))


def put(held: RangeSet, start: int, end: int) -> None:
    held.add(start, end, crc32c(FILE[start:end]))


def test_the_empty_set() -> None:
    held = RangeSet()
    assert (held.next_expected_byte, held.total_bytes, held.highest_byte, held.prefix_crc32c(), len(held)) == (0,) * 5
    assert (held.beyond_next(), held.snapshot(), held.tail(0)) == ([], (), None)
    assert held.missing(0, 10) == [Span(0, 10)]


def test_a_range_at_the_start_is_the_prefix() -> None:
    held = ranges((0, 10), (20, 30))
    assert (held.next_expected_byte, held.total_bytes, held.highest_byte) == (10, 20, 30)
    assert held.prefix_crc32c() == crc32c(FILE[:10])
    assert held.beyond_next() == [digested(20, 30)]
    assert (list(held), len(held)) == ([digested(0, 10), digested(20, 30)], 2)


def test_a_range_elsewhere_is_beyond_the_prefix() -> None:
    held = ranges((5, 10))
    assert (held.next_expected_byte, held.prefix_crc32c()) == (0, 0)
    assert held.beyond_next() == [digested(5, 10)]


@pytest.mark.parametrize(
    ("order", "count"),
    [([(0, 10), (10, 20), (20, 30)], 1), ([(20, 30), (10, 20), (0, 10)], 1), ([(0, 10), (20, 30), (10, 20)], 1)],
)
def test_adjacent_ranges_and_their_crcs_are_joined(order: list[tuple[int, int]], count: int) -> None:
    held = RangeSet()
    for start, end in order:
        put(held, start, end)
    assert held.snapshot() == (digested(0, 30),)
    assert len(held) == count


def test_separate_ranges_stay_apart_and_in_order() -> None:
    held = RangeSet()
    for start in (40, 0, 20):
        put(held, start, start + 10)
    assert held.snapshot() == (digested(0, 10), digested(20, 30), digested(40, 50))


def test_a_range_is_extended_at_its_end() -> None:
    held = ranges((0, 10), (30, 40))
    assert held.tail(10) == digested(0, 10)
    held.extend(10, 20, crc32c(FILE[:20]))
    assert held.snapshot() == (digested(0, 20), digested(30, 40))


def test_an_extension_that_meets_the_next_range_joins_it() -> None:
    held = ranges((0, 10), (20, 30))
    held.extend(10, 20, crc32c(FILE[:20]))
    assert held.snapshot() == (digested(0, 30),)


@pytest.mark.parametrize("start", [0, 4, 9, 11, 15, 35])
def test_a_range_can_be_extended_only_at_its_end(start: int) -> None:
    held = ranges((5, 10), (20, 30))
    assert held.tail(start) is None
    with pytest.raises(KeyError):
        held.extend(start, start + 1, 0)
    assert held.snapshot() == (digested(5, 10), digested(20, 30))


@pytest.mark.parametrize(
    ("start", "end", "gaps"),
    [
        (0, 50, [Span(0, 5), Span(10, 20), Span(30, 50)]),
        (5, 10, []),
        (6, 9, []),
        (8, 22, [Span(10, 20)]),
        (10, 20, [Span(10, 20)]),
        (12, 15, [Span(12, 15)]),
        (40, 41, [Span(40, 41)]),
        (7, 7, []),
    ],
)
def test_missing_lists_the_gaps_within_a_span(start: int, end: int, gaps: list[Span]) -> None:
    assert ranges((5, 10), (20, 30)).missing(start, end) == gaps


@pytest.mark.parametrize(
    ("held", "start", "end", "gaps"),
    [
        (ranges(), 0, 10, 0),
        (ranges(), 1, 10, 1),
        (ranges((0, 10)), 10, 20, 0),
        (ranges((0, 10)), 11, 20, 1),
        (ranges((5, 10)), 0, 5, 0),
        (ranges((5, 10)), 0, 4, 1),
        (ranges((5, 10)), 20, 30, 2),
        (ranges((0, 10), (20, 30)), 10, 20, 0),
        (ranges((0, 10), (20, 30)), 12, 15, 2),
        (ranges((0, 10), (20, 30)), 22, 25, 1),
    ],
)
def test_gaps_are_counted_before_a_range_is_added(held: RangeSet, start: int, end: int, gaps: int) -> None:
    assert held.gaps_after(start, end) == gaps


def test_a_snapshot_does_not_change() -> None:
    held = ranges((0, 10))
    before = held.snapshot()
    put(held, 20, 30)
    assert before == (digested(0, 10),)
