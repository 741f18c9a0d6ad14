"""Acknowledgements and the window. PROTOCOL.md §7, §11."""

from dataclasses import replace

import pytest

from protocol import frames
from protocol.constants import CHUNK_OVERHEAD_BYTES, FRAME_BYTES_MIN, NACKS_PER_RANGE_MAX
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, StreamFailed
from protocol.ranges import Span
from tests.support.server_outcomes import failure, received
from tests.support.server_rig import HELLO, LIMITS, chunk, corrupt, merged, open_stream, with_stream

ONE_CHUNK_BYTES = 100 + CHUNK_OVERHEAD_BYTES
SMALL_WINDOW = replace(LIMITS, window_bytes=ONE_CHUNK_BYTES)
"""A window for one chunk of a hundred bytes."""


@pytest.mark.parametrize("size", [1, 10, 100])
def test_the_window_is_exact_to_the_byte_and_counts_the_overhead_of_each_chunk(size: int) -> None:
    count = 100 // size
    rig = with_stream(limits=replace(LIMITS, window_bytes=100 + (count + 1) * CHUNK_OVERHEAD_BYTES))
    raw = b"".join(chunk(1, at, bytes(size)) for at in range(0, 100, size))
    events = merged(rig.feed(raw))
    assert events == [received(1, 0, bytes(100), count)]
    assert isinstance(events[0], ChunksReceived)
    assert events[0].charged_bytes == rig.connection.streams.unacknowledged_bytes == 100 + count * CHUNK_OVERHEAD_BYTES
    assert failure(rig.feed(chunk(1, 100, b"x"))) is ErrorCode.WINDOW_EXCEEDED


@pytest.mark.parametrize("streams", [1, 4])
def test_small_chunks_cannot_fill_the_window_with_data(streams: int) -> None:
    rig = with_stream(limits=replace(LIMITS, window_bytes=1000 * (1 + CHUNK_OVERHEAD_BYTES)))
    for number in range(2, streams + 1):
        open_stream(rig, number)
    flood = b"".join(chunk(1 + at % streams, at // streams, b"x") for at in range(1000))
    assert merged(rig.feed(flood))
    assert failure(rig.feed(chunk(1, 1000, b"x"))) is ErrorCode.WINDOW_EXCEEDED


def test_an_ack_frees_the_window() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    for turn in range(5):
        assert rig.feed(chunk(1, turn * 100, bytes(100)))
        rig.connection.acknowledge(1, (turn + 1) * 100, [], ONE_CHUNK_BYTES)
        assert rig.sent() == [(1, frames.Ack((turn + 1) * 100))]
    assert rig.connection.streams.unacknowledged_bytes == 0


def test_the_end_of_a_stream_frees_its_window() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    open_stream(rig, 2)
    rig.feed(chunk(1, 0, bytes(100)))
    rig.connection.aborted(1, 42)
    assert rig.feed(chunk(2, 0, bytes(100)))


def test_a_resend_after_a_nack_may_exceed_a_full_window() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    rig.feed(corrupt(1, 0, b"x") + chunk(1, 40, bytes(100)))
    assert rig.feed(chunk(1, 0, b"x")) == [received(1, 0, b"x")]
    assert failure(rig.feed(chunk(1, 140, b"x"))) is ErrorCode.WINDOW_EXCEEDED


def test_refused_bytes_may_come_again_one_by_one() -> None:
    rig = with_stream(limits=replace(LIMITS, window_bytes=100 * (1 + CHUNK_OVERHEAD_BYTES)))
    rig.feed(corrupt(1, 0, bytes(50)) + b"".join(chunk(1, at, b"x") for at in range(50, 150)))
    assert merged(rig.feed(b"".join(chunk(1, at, b"x") for at in range(50))))
    assert failure(rig.feed(chunk(1, 150, b"x"))) is ErrorCode.WINDOW_EXCEEDED


def test_ack_ranges_are_cut_to_k_and_to_the_devices_largest_frame() -> None:
    beyond = [Span(at * 10, at * 10 + 5) for at in range(1, 20)]
    rig = with_stream()
    rig.connection.acknowledge(1, 5, beyond, 0)
    assert rig.sent() == [(1, frames.Ack(5, tuple(beyond[: HELLO.ack_ranges_max])))]
    rig = with_stream(hello=replace(HELLO, frame_bytes_max=FRAME_BYTES_MIN))
    rig.connection.acknowledge(1, 5, beyond, 0)
    assert rig.sent() == [(1, frames.Ack(5, tuple(beyond[:2])))]


def test_a_range_refused_by_the_caller_frees_the_window_and_keeps_the_stream() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    rig.feed(chunk(1, 50, bytes(100)))
    rig.connection.refuse_range(1, Span(50, 150), ErrorCode.TOO_MANY_GAPS, ONE_CHUNK_BYTES)
    ((_, nack),) = rig.sent()
    assert isinstance(nack, frames.Nack)
    assert (nack.code, nack.start_byte, nack.end_byte) == (ErrorCode.TOO_MANY_GAPS, 50, 149)
    assert rig.connection.streams.unacknowledged_bytes == 0
    assert rig.feed(chunk(1, 0, bytes(100)))


@pytest.mark.parametrize("first", [0, NACKS_PER_RANGE_MAX - 1])
def test_the_eighth_refusal_of_a_range_ends_the_stream_whatever_the_reason(first: int) -> None:
    rig = with_stream()
    for _ in range(first):
        rig.feed(corrupt(1, 50, bytes(100)))
    for _ in range(first, NACKS_PER_RANGE_MAX):
        assert rig.connection.take_events() == []
        rig.feed(chunk(1, 50, bytes(100)))
        rig.connection.refuse_range(1, Span(50, 150), ErrorCode.TOO_MANY_GAPS, ONE_CHUNK_BYTES)
    (failed,) = rig.connection.take_events()
    assert isinstance(failed, StreamFailed)
    assert (failed.stream, failed.code) == (1, ErrorCode.NACKS_EXHAUSTED)
    *nacks, error = [sent for _, sent in rig.sent()]
    assert [type(each) for each in nacks] == [frames.Nack] * (NACKS_PER_RANGE_MAX - 1)
    assert isinstance(error, frames.Error)
    assert error.code == ErrorCode.NACKS_EXHAUSTED
    assert 1 not in rig.connection.streams
    assert rig.connection.streams.unacknowledged_bytes == 0


def test_a_missing_range_may_be_reported_any_number_of_times() -> None:
    rig = with_stream()
    for _ in range(3 * NACKS_PER_RANGE_MAX):
        rig.connection.refuse_range(1, Span(0, 4), ErrorCode.INCOMPLETE, 0)
    assert rig.connection.take_events() == []
    assert 1 in rig.connection.streams
