"""Stream numbers, refusals and the window. PROTOCOL.md §6, §9, §11."""

import pytest

from protocol.constants import CHUNK_OVERHEAD_BYTES, NACKS_PER_RANGE_MAX, SIZE_UNKNOWN
from protocol.errors import ErrorCode
from protocol.exceptions import ProtocolError
from protocol.ranges import Span
from protocol.state import StreamState
from protocol.streams import Stream, Streams


def opened(streams: Streams, number: int) -> Stream:
    assert streams.open(number)
    stream = streams.get(number)
    assert stream is not None
    return stream


def test_a_new_stream_awaits_its_answer_and_has_no_size() -> None:
    stream = opened(Streams(4, 100), 3)
    assert stream.state is StreamState.OPENING
    assert stream.size == SIZE_UNKNOWN


def test_open_streams_are_counted_and_found_by_number() -> None:
    streams = Streams(4, 100)
    opened(streams, 3)
    opened(streams, 9)
    assert len(streams) == 2
    assert 3 in streams
    assert 4 not in streams
    assert streams.numbers() == (3, 9)
    assert streams.get(4) is None


@pytest.mark.parametrize("number", [1, 4, 5])
def test_numbers_only_rise(number: int) -> None:
    streams = Streams(4, 100)
    opened(streams, 5)
    streams.end(5)
    with pytest.raises(ProtocolError) as refused:
        streams.open(number)
    assert refused.value.code is ErrorCode.STREAM_REUSED
    opened(streams, 6)


def test_a_number_used_by_another_frame_cannot_be_opened() -> None:
    streams = Streams(4, 100)
    streams.use(7)
    streams.use(5)
    assert streams.is_used(7)
    assert streams.is_used(1)
    assert not streams.is_used(8)
    with pytest.raises(ProtocolError):
        streams.open(7)


def test_an_open_beyond_the_stream_limit_fails_and_uses_up_its_number() -> None:
    streams = Streams(2, 100)
    opened(streams, 1)
    opened(streams, 2)
    assert not streams.open(3)
    assert 3 not in streams
    assert streams.is_used(3)
    streams.end(1)
    opened(streams, 4)


def test_the_eighth_refusal_of_one_range_is_one_too_many() -> None:
    stream = Stream(StreamState.RECEIVING)
    refusals = [stream.refuse(Span(100, 150)) for _ in range(NACKS_PER_RANGE_MAX)]
    assert refusals == [False] * (NACKS_PER_RANGE_MAX - 1) + [True]
    assert NACKS_PER_RANGE_MAX == 8


def test_refusals_are_counted_for_each_range() -> None:
    stream = Stream(StreamState.RECEIVING)
    assert not any(stream.refuse(Span(start, 100)) for start in range(20))
    assert not any(stream.refuse(Span(0, end)) for end in range(1, 20))


def test_an_ack_clears_only_refusals_that_start_within_its_bytes() -> None:
    stream = Stream(StreamState.RECEIVING)
    ranges = [Span(99, 120), Span(100, 120), Span(149, 160), Span(150, 160), Span(0, 1)]
    for each in ranges * (NACKS_PER_RANGE_MAX - 1):
        stream.refuse(each)
    stream.clear_refusals(1, [Span(100, 150)])
    assert [stream.refuse(each) for each in ranges] == [True, False, False, True, False]


def test_the_number_of_remembered_refusals_is_bounded() -> None:
    stream = Stream(StreamState.RECEIVING)
    for _ in range(NACKS_PER_RANGE_MAX - 1):
        stream.refuse(Span(0, 1))
    for start in range(1, 64):
        stream.refuse(Span(start, start + 1))
    assert stream.refuse(Span(0, 1)), "its refusals are still counted"
    for start in range(100, 164):
        stream.refuse(Span(start, start + 1))
    assert not stream.refuse(Span(0, 1)), "too many other ranges were refused in between"


def test_all_streams_share_one_window_exact_to_the_byte() -> None:
    streams = Streams(4, 100 + 3 * CHUNK_OVERHEAD_BYTES)
    first, second = opened(streams, 1), opened(streams, 2)
    streams.receive(first, 60, 2)
    streams.receive(second, 40, 1)
    assert streams.unacknowledged_bytes == 100 + 3 * CHUNK_OVERHEAD_BYTES
    with pytest.raises(ProtocolError) as refused:
        streams.receive(second, 1, 0)
    assert refused.value.code is ErrorCode.WINDOW_EXCEEDED


def test_settled_chunks_leave_the_window_once() -> None:
    streams = Streams(4, 1000)
    first, second = opened(streams, 1), opened(streams, 2)
    streams.receive(first, 60, 1)
    streams.receive(second, 40, 1)
    streams.free_window(first, 50 + CHUNK_OVERHEAD_BYTES)
    streams.free_window(first, 50 + CHUNK_OVERHEAD_BYTES)
    assert first.unacknowledged_bytes == 0
    assert streams.unacknowledged_bytes == 40 + CHUNK_OVERHEAD_BYTES


def test_a_stream_that_ends_frees_its_window() -> None:
    streams = Streams(4, 1000)
    stream = opened(streams, 1)
    streams.receive(stream, 60, 1)
    streams.end(1)
    streams.end(1)
    assert streams.unacknowledged_bytes == 0


def test_refused_bytes_may_be_sent_again_into_a_full_window_in_chunks_of_any_size() -> None:
    streams = Streams(4, 100 + 100 * CHUNK_OVERHEAD_BYTES)
    stream = opened(streams, 1)
    streams.receive(stream, 100, 100)
    streams.allow_resend(30)
    streams.receive(stream, 30, 30)
    with pytest.raises(ProtocolError):
        streams.receive(stream, 1, 1)


def test_resends_add_at_most_one_more_window() -> None:
    streams = Streams(4, 100 + CHUNK_OVERHEAD_BYTES)
    stream = opened(streams, 1)
    streams.allow_resend(2**62)
    streams.receive(stream, 200, 2)
    with pytest.raises(ProtocolError):
        streams.receive(stream, 1, 0)


def test_there_is_work_while_a_stream_waits_for_an_answer() -> None:
    streams = Streams(4, 1000)
    assert not streams.has_work
    stream = opened(streams, 1)
    assert streams.has_work, "the answer to OPEN"
    stream.state = StreamState.RECEIVING
    assert not streams.has_work
    streams.receive(stream, 10, 1)
    assert streams.has_work, "an ACK"
    streams.free_window(stream, 10 + CHUNK_OVERHEAD_BYTES)
    assert not streams.has_work
    stream.state = StreamState.FINISHING
    assert streams.has_work, "the answer to FINISH"
    streams.end(1)
    assert not streams.has_work
