"""What is still to be sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.pending import Pending
from protocol.ranges import Span

SIZE = 40
SPANS = st.lists(
    st.tuples(st.integers(0, SIZE + 5), st.integers(1, 9)).map(lambda pair: Span(pair[0], sum(pair))), max_size=6
)


def drain(pending: Pending, bytes_max: int) -> list[Span]:
    taken = []
    while pending:
        taken.append(pending.take(bytes_max))
    return taken


def positions(spans: list[Span]) -> list[int]:
    return [position for span in spans for position in range(span.start, span.end)]


@given(st.integers(0, SIZE), SPANS, st.integers(1, SIZE + 1))
def test_what_the_server_lacks_is_sent_once_in_order(next_byte: int, held: list[Span], bytes_max: int) -> None:
    pending = Pending(SIZE, next_byte, held)
    lacking = sorted(set(range(next_byte, SIZE)) - set(positions(held)))
    assert pending.total_bytes == len(lacking)
    taken = drain(pending, bytes_max)
    assert positions(taken) == lacking
    assert all(0 < span.end - span.start <= bytes_max for span in taken)


@given(SPANS, st.integers(0, SIZE), SPANS)
def test_refused_bytes_come_again_once_lowest_first(held: list[Span], count: int, refused: list[Span]) -> None:
    pending = Pending(SIZE, 0, held)
    left = set(range(SIZE)) - set(positions(held))
    if pending and count:
        left -= set(positions([pending.take(count)]))
    for span in refused:
        pending.add(span)
    assert positions(drain(pending, 7)) == sorted(left | set(positions(refused)))


def test_nothing_can_be_taken_from_nothing() -> None:
    with pytest.raises(IndexError):
        Pending(0, 0, ()).take(1)
