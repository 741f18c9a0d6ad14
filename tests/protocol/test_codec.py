"""The codec beyond the vectors: derived formats, frames cut to the device's limit, and invalid calls."""

import pytest

from protocol import codec, frames
from protocol.checksum import crc32c, sum8
from protocol.constants import (
    AGENT_BYTES_MAX,
    FRAME_BYTES_MIN,
    OFFSET_MAX,
    TEXT_BYTES_MAX,
    Action,
    CredentialKind,
    FrameType,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.exceptions import LocalProtocolError, ProtocolError
from protocol.ranges import Span

RANGES = (Span(16, 20), Span(30, 40), Span(50, 60))
SHA256 = bytes(32)


def decoded(raw: bytes) -> frames.ControlFrame:
    return codec.decode(FrameType(raw[0]), raw[codec.PREFIX_BYTES :])


def opened(ranges: tuple[Span, ...] | None = RANGES, sha256: bytes | None = SHA256) -> frames.Opened:
    return frames.Opened(1, UploadState.RECEIVING, UploadState.NONE, 8, 60, 7, ranges, sha256)


@pytest.mark.parametrize("kind", frames.CHUNK_HEADERS, ids=lambda kind: kind.name)
def test_formats_have_the_declared_sizes(kind: FrameType) -> None:
    assert codec.PREFIX.size == codec.PREFIX_BYTES == frames.PREFIX.sizeof()
    assert codec.CHUNK_HEADERS[kind].size == frames.CHUNK_HEADERS[kind].sizeof()
    assert codec.CHUNK_FRAMES[kind].size == codec.PREFIX_BYTES + frames.CHUNK_HEADERS[kind].sizeof()


def test_without_a_limit_no_field_is_left_out() -> None:
    assert decoded(codec.encode(opened(), 1)) == opened()


@pytest.mark.parametrize(("frame_bytes_max", "kept"), [(56, 1), (64, 1), (71, 1), (72, 2), (88, 3)])
def test_only_the_ranges_that_fit_are_sent(frame_bytes_max: int, kept: int) -> None:
    raw = codec.encode(opened(), 1, frame_bytes_max)
    assert len(raw) <= frame_bytes_max
    assert decoded(raw) == opened(RANGES[:kept], None)


def test_a_later_field_may_fit_where_an_earlier_one_did_not() -> None:
    error = frames.Error(ErrorCode.FENCED, Action.LEAVE, 0, text="x" * 100)
    assert decoded(codec.encode(error, 1, FRAME_BYTES_MIN)) == frames.Error(ErrorCode.FENCED, Action.LEAVE, 0)
    raw = codec.encode(opened(RANGES[:1], SHA256), 1, 8 + 22 + 7 + 35)
    assert decoded(raw) == opened(RANGES[:1], None)


def test_ranges_are_left_out_when_none_fits() -> None:
    assert decoded(codec.encode(opened(), 1, 55)) == opened(None, None)


def test_a_field_that_fits_exactly_is_kept() -> None:
    raw = codec.encode(opened(), 1)
    assert codec.encode(opened(), 1, len(raw)) == raw


def test_text_is_cut_between_characters() -> None:
    goaway = decoded(codec.encode(frames.Goaway(ErrorCode.SHUTTING_DOWN, 0, "a" + "é" * TEXT_BYTES_MAX)))
    assert goaway == frames.Goaway(ErrorCode.SHUTTING_DOWN, 0, "a" + "é" * ((TEXT_BYTES_MAX - 1) // 2))


def test_text_may_quote_a_name_that_is_not_utf_8() -> None:
    error = decoded(codec.encode(frames.Error(ErrorCode.NAME_INVALID, Action.GIVE_UP, 0, text="name a\udcff"), 1))
    assert isinstance(error, frames.Error)
    assert error.text == "name a?"


def test_an_agent_is_cut_to_what_a_server_accepts() -> None:
    hello = decoded(codec.encode(frames.Hello(CredentialKind.TOKEN, 0, 64, token="t", agent="a" * 100)))
    assert isinstance(hello, frames.Hello)
    assert hello.agent == "a" * AGENT_BYTES_MAX


def test_a_name_that_is_not_utf_8_round_trips() -> None:
    query = codec.decode(FrameType.QUERY, b"\x10\x00\x02a\xff")
    assert query == frames.Query("a\udcff")
    assert codec.encode(query, 3) == b"\x15\x00\x00\x03\x00\x00\x00\x05\x10\x00\x02a\xff"


def test_the_fast_ack_equals_an_ack_without_ranges() -> None:
    assert codec.encode_ack(9, 2**40) == codec.encode(frames.Ack(2**40), 9)


def test_a_decoding_error_names_the_frame_and_the_field() -> None:
    with pytest.raises(ProtocolError, match="QUERY: required field name is missing") as refused:
        codec.decode(FrameType.QUERY, b"")
    assert refused.value.code is ErrorCode.FRAME_MALFORMED


@pytest.mark.parametrize("kind", frames.CHUNK_HEADERS, ids=lambda kind: kind.name)
def test_construct_reads_the_chunk_that_the_codec_writes(kind: FrameType) -> None:
    data = b"uplinkd\n"
    raw = codec.encode_chunk_header(kind, 7, 100, memoryview(bytearray(data)))
    prefix = frames.PREFIX.parse(raw)
    header = frames.CHUNK_HEADERS[kind].parse(raw[codec.PREFIX_BYTES :])
    assert (prefix.type, prefix.flags, prefix.stream) == (kind, 0, 7)
    assert prefix.length == len(raw) - codec.PREFIX_BYTES + len(data)
    assert (header.start_byte, header.end_byte) == (100, 107)
    assert header.checksum == (crc32c(raw[:24] + data) if kind is FrameType.CHUNK_CRC32C else sum8(data))


@pytest.mark.parametrize("kind", frames.CHUNK_HEADERS, ids=lambda kind: kind.name)
def test_an_empty_chunk_is_never_encoded(kind: FrameType) -> None:
    with pytest.raises(LocalProtocolError, match="at least one byte"):
        codec.encode_chunk_header(kind, 1, 0, b"")


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (FrameType.CHUNK, OFFSET_MAX),
        (FrameType.CHUNK, -1),
        (FrameType.CHUNK_COMPACT, 2**32 - 1),
        (FrameType.CHUNK_CRC32C, OFFSET_MAX - 1),
        (FrameType.CHUNK_CRC32C, -1),
    ],
)
def test_a_chunk_out_of_bounds_is_never_encoded(kind: FrameType, start: int) -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode_chunk_header(kind, 1, start, b"ab")


def test_the_chunk_with_the_highest_offset_can_be_encoded() -> None:
    assert codec.encode_chunk_header(FrameType.CHUNK, 1, OFFSET_MAX - 2, b"ab")
    assert codec.encode_chunk_header(FrameType.CHUNK_COMPACT, 1, 2**32 - 2, b"ab")
