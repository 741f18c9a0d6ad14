"""OPEN: where an upload resumes, what waits for the answer, and what is refused. PROTOCOL.md §6."""

import pytest

from protocol import codec, frames
from protocol.constants import OFFSET_MAX, SIZE_UNKNOWN, Action, FrameType, UploadState
from protocol.errors import ErrorCode
from protocol.events import OpenRequested
from protocol.server_output import WAIT_MS
from protocol.state import StreamState
from tests.support.server_outcomes import received, stream_failure
from tests.support.server_rig import chunk, merged, open_frame, opened_of, welcomed, with_stream


def test_open_is_reported_and_the_answer_says_where_to_resume() -> None:
    rig = welcomed()
    (event,) = rig.feed(open_frame(5, "a/b", 100))
    assert isinstance(event, OpenRequested)
    assert (event.stream, event.open.name, event.open.size) == (5, "a/b", 100)
    assert not rig.connection.is_held, "other frames are not held"
    rig.connection.opened(5, opened_of(40), 100)
    assert rig.sent() == [(5, opened_of(40))]
    stream = rig.connection.streams.get(5)
    assert stream is not None
    assert (stream.state, stream.size, stream.next_expected_byte) == (StreamState.RECEIVING, 100, 40)


def test_a_complete_file_ends_its_stream_and_later_chunks_are_dropped() -> None:
    rig = welcomed()
    rig.feed(open_frame(1, size=4) + chunk(1, 0, b"data"))
    rig.connection.opened(1, opened_of(4, UploadState.COMPLETE), 4)
    assert rig.resume() == []
    assert rig.sent() == [(1, opened_of(4, UploadState.COMPLETE))]
    assert 1 not in rig.connection.streams


@pytest.mark.parametrize(
    "behind",
    [
        chunk(1, 0, b"data"),
        chunk(1, 0, b"data", FrameType.CHUNK_CRC32C),
        codec.encode(frames.Finish(4), 1),
        codec.encode(frames.Abort(), 1),
    ],
    ids=["chunk", "crc32c", "finish", "abort"],
)
@pytest.mark.parametrize("opens", [True, False], ids=["opened", "failed"])
def test_input_after_an_open_waits_for_the_decision(behind: bytes, opens: bool) -> None:
    rig = welcomed()
    (event,) = rig.feed(open_frame(1, size=4) + behind + codec.encode(frames.Ping(1)))
    assert isinstance(event, OpenRequested)
    assert rig.connection.is_held
    assert rig.sent() == []
    if opens:
        rig.connection.opened(1, opened_of(), 4)
        assert len(rig.resume()) == 1
    else:
        rig.connection.fail_stream(1, ErrorCode.GONE, "deleted")
        assert rig.resume() == [], "frames for a stream that never opened are dropped"
    assert not rig.connection.is_held
    assert rig.sent()[-1] == (0, frames.Pong(1))


def test_other_streams_wait_behind_held_input_and_lose_nothing() -> None:
    rig = with_stream()
    data = b"".join(chunk(1, at * 1000, bytes([at]) * 1000) for at in range(200))
    rig.feed(open_frame(2) + chunk(2, 0, b"first") + data)
    assert rig.connection.is_held
    rig.connection.opened(2, opened_of(), SIZE_UNKNOWN)
    first, *rest = merged(rig.resume())
    assert first == received(2, 0, b"first")
    assert rest == [received(1, 0, b"".join(bytes([at]) * 1000 for at in range(200)), 200)]
    assert rig.pool.lent == 0


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (open_frame(2, ""), ErrorCode.NAME_INVALID),
        (open_frame(2, "nul\0"), ErrorCode.NAME_INVALID),
        (open_frame(2, "x" * 256), ErrorCode.NAME_INVALID),
        (open_frame(2, "\udcff"), ErrorCode.NAME_INVALID),
        (open_frame(2, size=OFFSET_MAX + 1), ErrorCode.SIZE_INVALID),
    ],
)
def test_an_invalid_open_costs_only_its_stream(raw: bytes, code: ErrorCode) -> None:
    rig = with_stream()
    assert stream_failure(rig, raw, 2) == (code, SIZE_UNKNOWN)
    assert rig.feed(chunk(2, 0, b"late") + chunk(1, 0, b"data")) == [received(1, 0, b"data")]


def test_names_that_look_like_paths_are_only_names() -> None:
    (event,) = welcomed().feed(open_frame(1, "/etc/passwd"))
    assert isinstance(event, OpenRequested)


def test_an_open_refused_by_the_caller_says_why_and_how_long_to_wait() -> None:
    rig = welcomed()
    rig.feed(open_frame(1))
    rig.connection.fail_stream(1, ErrorCode.DISK_FULL, "full")
    rig.connection.fail_stream(2, ErrorCode.QUOTA_EXCEEDED, "used up", wait_ms=60_000)
    assert rig.sent() == [
        (1, frames.Error(ErrorCode.DISK_FULL, Action.WAIT, WAIT_MS, SIZE_UNKNOWN, "full")),
        (2, frames.Error(ErrorCode.QUOTA_EXCEEDED, Action.WAIT, 60_000, SIZE_UNKNOWN, "used up")),
    ]
