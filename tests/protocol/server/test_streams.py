"""Streams: their limit, their numbers, and frames for unknown or ended streams. PROTOCOL.md §3, §11."""

from collections.abc import Callable

import pytest

from protocol import codec, frames
from protocol.constants import SIZE_UNKNOWN, Action
from protocol.errors import ErrorCode
from protocol.exceptions import LocalProtocolError
from protocol.ranges import Span
from tests.support.server_outcomes import failure, stream_failure
from tests.support.server_rig import (
    LIMITS,
    ServerRig,
    chunk,
    corrupt,
    open_frame,
    open_stream,
    opened_of,
    welcomed,
    with_stream,
)


def test_a_stream_above_the_limit_is_refused_until_another_ends() -> None:
    rig = welcomed()
    for number in range(1, LIMITS.streams_max + 1):
        open_stream(rig, number)
    assert stream_failure(rig, open_frame(9), 9) == (ErrorCode.TOO_MANY_STREAMS, SIZE_UNKNOWN)
    rig.connection.aborted(1, 42)
    rig.sent()
    open_stream(rig, 10)


@pytest.mark.parametrize("number", [1, 2])
def test_a_stream_number_is_used_once(number: int) -> None:
    rig = welcomed()
    open_stream(rig, 2)
    assert failure(rig.feed(open_frame(number))) is ErrorCode.STREAM_REUSED
    ((stream, error),) = rig.sent()
    assert stream == 0
    assert isinstance(error, frames.Error)
    assert error.action is Action.REOPEN


def test_answering_an_open_twice_is_a_caller_bug() -> None:
    rig = with_stream()
    for number in (1, 2):
        with pytest.raises(LocalProtocolError):
            rig.connection.opened(number, opened_of(), SIZE_UNKNOWN)


@pytest.mark.parametrize("number", [2, 500])
@pytest.mark.parametrize(
    "make",
    [
        lambda number: chunk(number, 0, b"data"),
        lambda number: codec.encode(frames.Finish(1), number),
        lambda number: codec.encode(frames.Abort(), number),
    ],
    ids=["chunk", "finish", "abort"],
)
def test_an_unknown_stream_is_reported_once_and_its_number_is_used_up(
    number: int, make: Callable[[int], bytes]
) -> None:
    rig = with_stream()
    assert stream_failure(rig, make(number), number) == (ErrorCode.STREAM_UNKNOWN, SIZE_UNKNOWN)
    assert rig.feed(make(number)) == []
    assert rig.sent() == []
    assert failure(rig.feed(open_frame(number))) is ErrorCode.STREAM_REUSED


@pytest.mark.parametrize(
    "end",
    [
        lambda rig: rig.connection.finished(1, frames.Finished(42, 4, 0)),
        lambda rig: rig.connection.aborted(1, 42),
        lambda rig: rig.connection.fail_stream(1, ErrorCode.FENCED, "taken over"),
    ],
    ids=["finished", "aborted", "failed"],
)
def test_late_frames_of_a_stream_that_ended_are_dropped(end: Callable[[ServerRig], None]) -> None:
    rig = with_stream()
    end(rig)
    rig.sent()
    late = chunk(1, 0, b"late") + corrupt(1, 4, b"late") + codec.encode(frames.Finish(1), 1)
    assert rig.feed(late + codec.encode(frames.Abort(), 1)) == []
    assert rig.sent() == []
    assert rig.connection.streams.unacknowledged_bytes == 0


def test_answers_for_an_ended_stream_are_dropped() -> None:
    rig = with_stream()
    rig.connection.acknowledge(9, 5, [], 5)
    rig.connection.refuse_range(9, Span(0, 5), ErrorCode.TOO_MANY_GAPS, 5)
    assert rig.sent() == []
