"""The range set against the simplest model: the set of all byte numbers."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocol.checksum import crc32c
from protocol.ranges import RangeSet

FILE = bytes((index * 37 + index // 7) % 256 for index in range(64))
OFFSETS = st.integers(0, len(FILE))


def runs(held: set[int]) -> list[tuple[int, int]]:
    """The numbers as half-open ranges."""
    edges = sorted(number for number in held if number - 1 not in held)
    ends = sorted(number + 1 for number in held if number + 1 not in held)
    return list(zip(edges, ends, strict=True))


class RangeSetAgainstModel(RuleBasedStateMachine):
    """Adds bytes in any order, repeated and overlapping, as chunks arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.held = RangeSet()
        self.model: set[int] = set()

    @rule(one=OFFSETS, other=OFFSETS)
    def receive(self, one: int, other: int) -> None:
        start, end = sorted((one, other))
        after = self.model | set(range(start, end))
        if start < end:
            expected_gaps = len(runs(after)) - (0 in after)
            assert self.held.gaps_after(start, end) == expected_gaps
        for gap in self.held.missing(start, end):
            self.take(gap.start, gap.end)
        self.model = after

    def take(self, start: int, end: int) -> None:
        assert self.model.isdisjoint(range(start, end))
        tail = self.held.tail(start)
        if tail is None:
            self.held.add(start, end, crc32c(FILE[start:end]))
        else:
            self.held.extend(start, end, crc32c(FILE[start:end], tail.crc32c))

    @rule(one=OFFSETS, other=OFFSETS)
    def compare_gaps(self, one: int, other: int) -> None:
        start, end = sorted((one, other))
        assert self.held.missing(start, end) == runs(set(range(start, end)) - self.model)

    @rule(start=OFFSETS)
    def compare_tails(self, start: int) -> None:
        tail = self.held.tail(start)
        assert (tail is not None) is (start - 1 in self.model and start not in self.model)
        assert tail is None or tail.end == start

    @invariant()
    def ranges_match_the_model_and_have_its_crcs(self) -> None:
        expected = [(start, end, crc32c(FILE[start:end])) for start, end in runs(self.model)]
        assert [(each.start, each.end, each.crc32c) for each in self.held] == expected
        assert self.held.snapshot() == tuple(self.held)
        assert len(self.held) == len(expected)

    @invariant()
    def totals_match_the_model(self) -> None:
        next_expected_byte = next(number for number in range(len(FILE) + 1) if number not in self.model)
        assert self.held.next_expected_byte == next_expected_byte
        assert self.held.prefix_crc32c() == crc32c(FILE[:next_expected_byte])
        assert self.held.total_bytes == len(self.model)
        assert self.held.highest_byte == max(self.model, default=-1) + 1
        assert all(each.start > next_expected_byte for each in self.held.beyond_next())
        assert len(self.held.beyond_next()) == len(self.held) - (next_expected_byte > 0)


RangeSetAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRangeSet = RangeSetAgainstModel.TestCase


@given(st.permutations(range(0, 64, 4)))
def test_any_order_gives_the_same_set(starts: list[int]) -> None:
    held = RangeSet()
    for start in starts:
        held.add(start, start + 4, crc32c(FILE[start : start + 4]))
    [whole] = held
    assert (whole.start, whole.end, whole.crc32c) == (0, 64, crc32c(FILE))
