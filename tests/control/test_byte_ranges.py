"""Range headers of RFC 9110, section 14, example by example and against a naive model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.byte_ranges import GAP_BYTES, RANGES_MAX, ByteRange, NotSatisfiableError, select


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-499", (0, 500)),
        ("bytes=500-999", (500, 1000)),
        ("bytes=-500", (9500, 10000)),
        ("bytes=9500-", (9500, 10000)),
        ("bytes=0-0", (0, 1)),
        ("bytes=-1", (9999, 10000)),
        ("bytes=0-", (0, 10000)),
        ("bytes=9999-20000", (9999, 10000)),
        ("bytes=-20000", (0, 10000)),
        ("Bytes=0-1", (0, 2)),
        ("bytes= 0-1 ,", (0, 2)),
        ("bytes=000-001", (0, 2)),
        (f"bytes=5-{'9' * 5000}", (5, 10000)),
        ("bytes=0-1,20000-", (0, 2)),
    ],
)
def test_one_range(header: str, expected: tuple[int, int]) -> None:
    assert select(header, 10000) == (ByteRange(*expected),)


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0-1-2", "bytes=1 - 2", "bytes=+1-2",
     "bytes=0-1,x", "bytes=٣-٤", "items=0-5", "bytes 0-5", "bytes=0-1;5-6"],
)  # fmt: skip
def test_what_is_no_byte_range_is_ignored(header: str) -> None:
    assert select(header, 10000) == ()


@pytest.mark.parametrize(
    "header", ["bytes=10000-", "bytes=10000-10001", "bytes=-0", f"bytes={'9' * 5000}-", "bytes=10000-,20000-30000"]
)
def test_what_lies_outside_is_not_satisfiable(header: str) -> None:
    with pytest.raises(NotSatisfiableError, match="10000 bytes"):
        select(header, 10000)


def test_empty_content_satisfies_a_suffix_alone() -> None:
    assert select("bytes=-5", 0) == ()
    for header in ["bytes=0-", "bytes=0-0", "bytes=-0"]:
        with pytest.raises(NotSatisfiableError):
            select(header, 0)


def test_more_ranges_than_the_bound_are_refused() -> None:
    few = ",".join(f"{start}-{start}" for start in range(0, RANGES_MAX * 1000, 1000))
    assert len(select(f"bytes={few}", 10**9)) == RANGES_MAX
    with pytest.raises(NotSatisfiableError, match=f"at most {RANGES_MAX}"):
        select(f"bytes={few},-1", 10**9)


def test_parts_keep_the_order_asked_for() -> None:
    assert select("bytes=5000-5001,0-1,-2", 10000) == (ByteRange(5000, 5002), ByteRange(0, 2), ByteRange(9998, 10000))


def test_near_and_overlapping_ranges_become_one_part_where_the_first_of_them_stood() -> None:
    joined = f"bytes=5000-5009,0-1,{5010 + GAP_BYTES - 1}-6000,5005-5020"
    assert select(joined, 10000) == (ByteRange(5000, 6001), ByteRange(0, 2))
    apart = f"bytes=0-9,{10 + GAP_BYTES}-500"
    assert len(select(apart, 10000)) == 2


def test_content_range_is_inclusive() -> None:
    assert ByteRange(0, 500).content_range(1234) == "bytes 0-499/1234"


POSITION = st.integers(0, 1500)
SPEC: st.SearchStrategy[tuple[int | None, int | None]] = st.one_of(
    st.tuples(POSITION, POSITION).filter(lambda spec: spec[0] <= spec[1]),
    st.tuples(POSITION, st.none()),
    st.tuples(st.none(), POSITION),
)


def naive(specs: list[tuple[int | None, int | None]], size: int) -> list[set[int]]:
    """The positions that each range means, as sets."""
    wanted = []
    for first, last in specs:
        if first is None:
            wanted.append(set(range(size)[-last:] if last else ()))
        else:
            wanted.append(
                {position for position in range(size) if first <= position <= (size if last is None else last)}
            )
    return [positions for positions in wanted if positions]


@given(specs=st.lists(SPEC, min_size=1, max_size=RANGES_MAX), size=st.integers(1, 1200))
def test_parts_cover_what_was_asked_and_nothing_but_small_gaps(
    specs: list[tuple[int | None, int | None]], size: int
) -> None:
    header = "bytes=" + ",".join(f"{'' if a is None else a}-{'' if b is None else b}" for a, b in specs)
    wanted = naive(specs, size)
    if not wanted:
        with pytest.raises(NotSatisfiableError):
            select(header, size)
        return
    parts = select(header, size)
    sent = [set(range(part.start, part.end)) for part in parts]
    asked = set[int]().union(*wanted)
    assert asked <= set().union(*sent)
    assert sum(map(len, sent)) == len(set().union(*sent)), "parts overlap"
    for one, other in zip(sorted(parts), sorted(parts)[1:], strict=False):
        assert other.start - one.end >= GAP_BYTES
    for part in parts:
        assert {part.start, part.end - 1} <= asked, "a part begins and ends with a byte that was asked for"
        unasked = 0
        for position in range(part.start, part.end):
            unasked = 0 if position in asked else unasked + 1
            assert unasked < GAP_BYTES
    firsts = [min(rank for rank, positions in enumerate(wanted) if positions & part) for part in sent]
    assert firsts == sorted(firsts), "not in the order asked for"


@given(header=st.text(max_size=40) | st.text("bytes=0123456789-, ", max_size=40).map("bytes=".__add__))
def test_no_header_breaks_it(header: str) -> None:
    try:
        parts = select(header, 100)
    except NotSatisfiableError:
        return
    assert all(0 <= part.start < part.end <= 100 for part in parts)
