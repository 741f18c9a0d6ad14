"""FINISH, ABORT and QUERY, and floods of them. PROTOCOL.md §6, §14."""

import pytest

from protocol import codec, frames
from protocol.constants import OFFSET_MAX, SIZE_UNKNOWN
from protocol.errors import ErrorCode
from protocol.events import AbortRequested, FinishRequested, QueryReceived, StreamFailed
from protocol.ranges import Span
from protocol.server import REQUESTS_MAX
from protocol.state import StreamState
from tests.support.server_outcomes import stream_failure
from tests.support.server_rig import HELLO, ServerRig, chunk, open_stream, welcomed, with_stream


def test_every_finish_is_reported_and_finished_ends_the_stream() -> None:
    rig = with_stream()
    finish = frames.Finish(4, crc32c=7)
    for _ in range(2):
        assert rig.feed(codec.encode(finish, 1)) == [FinishRequested(1, finish)]
    rig.connection.send(1, frames.Verifying(50))
    rig.connection.finished(1, frames.Finished(42, 4, 7))
    assert rig.sent() == [(1, frames.Verifying(50)), (1, frames.Finished(42, 4, 7))]
    assert 1 not in rig.connection.streams


def test_a_zero_byte_file_needs_only_open_and_finish() -> None:
    rig = with_stream(size=0)
    assert rig.feed(codec.encode(frames.Finish(0), 1)) == [FinishRequested(1, frames.Finish(0))]


@pytest.mark.parametrize(
    ("declared", "size"), [(4, 3), (4, 5), (0, 1), (SIZE_UNKNOWN, OFFSET_MAX + 1), (SIZE_UNKNOWN, SIZE_UNKNOWN)]
)
def test_finish_must_name_the_declared_size(declared: int, size: int) -> None:
    rig = with_stream(size=declared)
    assert stream_failure(rig, codec.encode(frames.Finish(size), 1))[0] is ErrorCode.SIZE_INVALID


def test_an_incomplete_finish_binds_the_size() -> None:
    rig = with_stream()
    assert rig.feed(codec.encode(frames.Finish(10), 1)) == [FinishRequested(1, frames.Finish(10))]
    rig.connection.refuse_range(1, Span(0, 10), ErrorCode.INCOMPLETE, 0)
    (failed,) = rig.feed(codec.encode(frames.Finish(8), 1))
    assert failed == StreamFailed(
        1, ErrorCode.SIZE_INVALID, "FINISH says 8; OPEN or an earlier FINISH bound the size to 10"
    )


def test_the_size_in_finish_binds() -> None:
    rig = with_stream()
    rig.feed(codec.encode(frames.Finish(4), 1))
    assert stream_failure(rig, chunk(1, 4, b"x"))[0] is ErrorCode.CHUNK_BEYOND_END


def test_an_incomplete_upload_continues_after_finish() -> None:
    rig = with_stream()
    rig.feed(codec.encode(frames.Finish(4), 1))
    rig.connection.refuse_range(1, Span(0, 4), ErrorCode.INCOMPLETE, 0)
    ((_, nack),) = rig.sent()
    assert isinstance(nack, frames.Nack)
    assert (nack.code, nack.start_byte, nack.end_byte) == (ErrorCode.INCOMPLETE, 0, 3)
    stream = rig.connection.streams.get(1)
    assert stream is not None
    assert stream.state is StreamState.RECEIVING
    assert len(rig.feed(chunk(1, 0, b"data") + codec.encode(frames.Finish(4), 1))) == 2


def test_abort_is_reported_and_answered() -> None:
    rig = with_stream()
    assert rig.feed(codec.encode(frames.Abort(), 1)) == [AbortRequested(1)]
    rig.connection.aborted(1, 42)
    assert rig.sent() == [(1, frames.Aborted(42))]


@pytest.mark.parametrize("number", [0, 1, 65535])
def test_a_query_opens_no_stream_whatever_its_number(number: int) -> None:
    rig = with_stream()
    assert rig.feed(codec.encode(frames.Query("log.bin"), number)) == [QueryReceived(number, "log.bin")]
    open_stream(rig, 2)


def test_a_flood_of_requests_waits_until_some_are_answered() -> None:
    rig = welcomed()
    query = codec.encode(frames.Query("name"), 1)
    events = rig.feed(query * (REQUESTS_MAX + 2))
    assert len(events) == REQUESTS_MAX
    assert rig.connection.is_held
    rig.connection.answered()
    assert len(rig.resume()) == 1
    assert rig.connection.is_held
    rig.connection.answered()
    assert len(rig.resume()) == 1
    assert not rig.connection.is_held


def test_an_answer_to_a_request_does_not_release_input_that_waits_for_the_handshake() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(HELLO))
    rig.connection.answered()
    assert rig.connection.is_held
