"""Frames that are unknown, misplaced or skipped. PROTOCOL.md §3, §17."""

import pytest

from protocol import codec, frames
from protocol.constants import FrameType
from protocol.errors import ErrorCode
from tests.support.server_outcomes import failure, received
from tests.support.server_rig import chunk, frame, open_frame, with_stream


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frame(0x7E, b"?"), ErrorCode.FRAME_UNKNOWN),
        (frame(FrameType.PING, bytes(3)), ErrorCode.FRAME_MALFORMED),
        (frame(FrameType.PING, bytes(4), flags=4), ErrorCode.FRAME_MALFORMED),
        (frame(FrameType.OPEN, bytes(9), stream=2), ErrorCode.FRAME_MALFORMED),
        (codec.PREFIX.pack(FrameType.OPEN, 0, 2, 8185), ErrorCode.FRAME_TOO_LARGE),
        (codec.PREFIX.pack(0xFE, 0, 2, 2**32 - 1), ErrorCode.FRAME_TOO_LARGE),
        (codec.encode(frames.Ack(0), 1), ErrorCode.FRAME_UNEXPECTED),
    ],
)
def test_an_invalid_frame_ends_the_connection_after_earlier_frames_are_reported(raw: bytes, code: ErrorCode) -> None:
    rig = with_stream()
    first, *rest = rig.feed(chunk(1, 0, b"data") + raw + chunk(1, 4, b"late"))
    assert first == received(1, 0, b"data")
    assert failure(rest) is code
    assert len(rest) == 1
    ((stream, error),) = rig.sent()
    assert stream == 0
    assert isinstance(error, frames.Error)
    assert (error.code, error.action) == (code, code.action)


@pytest.mark.parametrize(
    "raw",
    [
        codec.encode(frames.Ping(1), 1),
        codec.encode(frames.Pong(1), 1),
        codec.encode(frames.Refresh("t"), 1),
        open_frame(0),
        codec.encode(frames.Finish(1), 0),
        codec.encode(frames.Abort(), 0),
        chunk(0, 0, b"data"),
    ],
    ids=["ping", "pong", "refresh", "open", "finish", "abort", "chunk"],
)
def test_a_frame_on_the_wrong_kind_of_stream_is_malformed(raw: bytes) -> None:
    assert failure(with_stream().feed(raw)) is ErrorCode.FRAME_MALFORMED


def test_unknown_skippable_frames_are_skipped() -> None:
    rig = with_stream()
    assert rig.feed(frame(0xF7, b"private", stream=3) + chunk(1, 0, b"data")) == [received(1, 0, b"data")]
