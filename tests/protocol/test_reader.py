"""Whole frames from bytes: the prefix is checked before its length is trusted. PROTOCOL.md §5, §17."""

import pytest

from protocol import codec, frames
from protocol.constants import CONTROL_FRAME_BYTES_MAX, FrameType
from protocol.errors import ErrorCode
from protocol.exceptions import ProtocolError
from protocol.reader import FrameReader, Head
from tests.support.server_rig import Pool, chunk, frame

PING = codec.encode(frames.Ping(7))


def reader_of(data: bytes, chunk_bytes_max: int = 0, pool: Pool | None = None) -> FrameReader:
    reader = FrameReader(pool or Pool())
    reader.chunk_bytes_max = chunk_bytes_max
    put(reader, data)
    return reader


def put(reader: FrameReader, data: bytes) -> None:
    reader.buffer.writable(2**20)[: len(data)] = data
    reader.buffer.received(len(data))


def refusal(reader: FrameReader) -> ErrorCode:
    with pytest.raises(ProtocolError) as refused:
        reader.next()
    return refused.value.code


def test_consecutive_frames_are_found() -> None:
    reader = reader_of(PING + chunk(3, 0, b"data", FrameType.CHUNK))
    ping = reader.next()
    assert ping == Head(FrameType.PING, 0, 12)
    assert reader.raw(ping) == PING
    assert reader.body(ping) == PING[8:]
    reader.consume(ping.frame_bytes)
    assert reader.next() == Head(FrameType.CHUNK, 3, 8 + 17 + 4)
    reader.consume(29)
    assert reader.next() is None
    assert not reader.save_rest()


@pytest.mark.parametrize("cut", range(len(PING)))
def test_a_frame_is_complete_only_with_its_last_byte(cut: int) -> None:
    reader = reader_of(PING[:cut])
    assert reader.next() is None
    assert reader.save_rest() == (cut > 0)
    put(reader, PING[cut:])
    assert reader.next() == Head(FrameType.PING, 0, 12)


@pytest.mark.parametrize("kind", [0x80, 0xA5, 0xEF, 0xF0, 0xFF])
def test_unknown_skippable_frames_have_no_type(kind: int) -> None:
    reader = reader_of(frame(kind, b"whatever", stream=9) + frame(kind) + PING)
    for size in (8 + 8, 8):
        skipped = reader.next()
        assert skipped is not None
        assert (skipped.type, skipped.frame_bytes) == (None, size)
        reader.consume(size)
    assert reader.next() == Head(FrameType.PING, 0, 12)


@pytest.mark.parametrize("kind", [0x00, 0x08, 0x23, 0x34, 0x7F])
def test_other_unknown_frames_are_refused_from_their_prefix(kind: int) -> None:
    assert refusal(reader_of(frame(kind, b"body")[:8])) is ErrorCode.FRAME_UNKNOWN


@pytest.mark.parametrize("kind", [FrameType.PING, FrameType.CHUNK, 0x80, 0x7F])
@pytest.mark.parametrize("flags", [1, 0x80, 0xFF])
def test_flags_are_refused_whatever_the_type(kind: int, flags: int) -> None:
    assert refusal(reader_of(frame(kind, bytes(4), flags=flags)[:8])) is ErrorCode.FRAME_MALFORMED


@pytest.mark.parametrize("kind", [FrameType.OPEN, FrameType.CHUNK, 0x80])
@pytest.mark.parametrize("length", [CONTROL_FRAME_BYTES_MAX - 7, 2**31, 2**32 - 1])
def test_a_length_above_the_limit_is_refused_from_the_prefix_alone(kind: int, length: int) -> None:
    pool = Pool()
    reader = reader_of(codec.PREFIX.pack(kind, 0, 0, length), pool=pool)
    assert refusal(reader) is ErrorCode.FRAME_TOO_LARGE
    assert pool.lent == 0


@pytest.mark.parametrize("kind", [FrameType.OPEN, FrameType.CHUNK, 0x80])
def test_a_frame_at_the_limit_is_awaited(kind: int) -> None:
    reader = reader_of(codec.PREFIX.pack(kind, 0, 0, CONTROL_FRAME_BYTES_MAX - 8))
    assert reader.next() is None


def test_chunks_have_a_limit_of_their_own() -> None:
    for kind, header in codec.CHUNK_HEADERS.items():
        largest = header.size + 100_000
        assert reader_of(codec.PREFIX.pack(kind, 0, 1, largest), 100_000).next() is None
        assert refusal(reader_of(codec.PREFIX.pack(kind, 0, 1, largest + 1), 100_000)) is ErrorCode.FRAME_TOO_LARGE
    assert refusal(reader_of(codec.PREFIX.pack(FrameType.OPEN, 0, 1, 50_000), 100_000)) is ErrorCode.FRAME_TOO_LARGE


def test_discarding_input_borrows_no_memory_for_the_frame_under_way() -> None:
    pool = Pool()
    reader = reader_of(codec.PREFIX.pack(FrameType.CHUNK, 0, 1, 2**32 - 1), pool=pool)
    refusal(reader)
    reader.discard()
    assert not reader.save_rest()
    assert reader.buffer.writable(2**20).nbytes > 0
    assert pool.lent == 0


def test_many_small_waiting_frames_are_kept_in_borrowed_memory() -> None:
    for count, lent in ((600, 0), (700, 1)):
        pool = Pool()
        reader = reader_of(PING * count, pool=pool)
        assert reader.next() == Head(FrameType.PING, 0, 12)
        assert reader.save_rest()
        assert pool.lent == lent
