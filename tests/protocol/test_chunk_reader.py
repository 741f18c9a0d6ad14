"""Chunks in every form, runs of adjacent chunks, and the cost of a bad one. PROTOCOL.md §9."""

from dataclasses import replace

import pytest

from protocol import codec, frames
from protocol.constants import NACKS_PER_RANGE_MAX, OFFSET_MAX, Action, ChecksumKind, Feature, FrameType
from protocol.errors import ErrorCode
from protocol.events import ChunkRefused, ChunksReceived, FinishRequested, StreamFailed
from protocol.ranges import Span
from tests.support.server_outcomes import LARGE, failure, received, stream_failure
from tests.support.server_rig import LIMITS, Refusal, chunk, corrupt, frame, merged, open_stream, welcomed, with_stream


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
@pytest.mark.parametrize("data", [b"x", b"small data", LARGE])
@pytest.mark.parametrize("sizes", [(), (3, 8, 20, 5000, 9000)], ids=["whole", "split"])
def test_every_form_of_chunk_is_received(kind: FrameType, data: bytes, sizes: tuple[int, ...]) -> None:
    rig = with_stream()
    checksum = ChecksumKind.CRC32C if kind is FrameType.CHUNK_CRC32C else ChecksumKind.SUM8
    assert rig.feed(chunk(1, 7, data, kind), sizes) == [received(1, 7, data, 1, checksum)]
    assert rig.sent() == []
    assert rig.pool.lent == 0


def test_adjacent_chunks_form_one_event_and_a_gap_starts_another() -> None:
    rig = with_stream()
    raw = chunk(1, 0, b"ab") + chunk(1, 2, b"cde") + chunk(1, 10, b"f") + chunk(1, 11, b"g", FrameType.CHUNK_COMPACT)
    assert rig.feed(raw) == [received(1, 0, b"abcde", 2), received(1, 10, b"fg", 2)]


def test_a_run_mixes_neither_streams_nor_checksum_forms() -> None:
    rig = with_stream()
    open_stream(rig, 2)
    raw = chunk(1, 0, b"a") + chunk(2, 1, b"b") + chunk(2, 2, b"c", FrameType.CHUNK_CRC32C)
    assert rig.feed(raw) == [
        received(1, 0, b"a"),
        received(2, 1, b"b"),
        received(2, 2, b"c", 1, ChecksumKind.CRC32C),
    ]


def test_a_control_frame_between_chunks_keeps_its_place() -> None:
    rig = with_stream()
    raw = chunk(1, 0, b"a") + codec.encode(frames.Finish(2), 1) + chunk(1, 1, b"b")
    assert rig.feed(raw) == [received(1, 0, b"a"), FinishRequested(1, frames.Finish(2)), received(1, 1, b"b")]


def test_many_small_chunks_are_gathered() -> None:
    rig = with_stream()
    data = bytes(range(250)) * 4
    raw = b"".join(chunk(1, at, data[at : at + 10]) for at in range(0, 1000, 10))
    assert rig.feed(raw) == [received(1, 0, data, 100)]


@pytest.mark.parametrize(
    ("kind", "feature"),
    [(FrameType.CHUNK_COMPACT, Feature.CHUNK_CRC32C), (FrameType.CHUNK_CRC32C, Feature.CHUNK_COMPACT)],
)
def test_a_chunk_form_that_was_not_negotiated_is_unexpected(kind: FrameType, feature: Feature) -> None:
    rig = welcomed(features=feature)
    open_stream(rig, 1)
    assert failure(rig.feed(chunk(1, 0, b"data", kind))) is ErrorCode.FRAME_UNEXPECTED


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
def test_the_plain_chunk_needs_no_feature(kind: FrameType) -> None:
    rig = welcomed(features=0)
    open_stream(rig, 1)
    events = rig.feed(chunk(1, 0, b"data", kind))
    assert (events == [received(1, 0, b"data")]) is (kind is FrameType.CHUNK)


@pytest.mark.parametrize("end_byte", [99, 0, 102, 104, 2**32 - 1])
def test_a_chunk_with_a_false_length_ends_its_stream_and_is_not_stored(end_byte: int) -> None:
    rig = with_stream()
    open_stream(rig, 2)
    rig.connection.acknowledge(1, 50, [], 0)
    rig.sent()
    assert stream_failure(rig, chunk(1, 100, b"four", wrong=Refusal(end_byte=end_byte))) == (
        ErrorCode.CHUNK_INVALID,
        50,
    )
    assert rig.feed(chunk(1, 0, b"late") + chunk(2, 0, b"data")) == [received(2, 0, b"data")]


def test_an_empty_chunk_ends_its_stream() -> None:
    raw = frame(FrameType.CHUNK, bytes(17), stream=1)
    assert stream_failure(with_stream(), raw)[0] is ErrorCode.CHUNK_INVALID


@pytest.mark.parametrize("last", [OFFSET_MAX, OFFSET_MAX + 1, 2**64 - 1])
def test_a_chunk_beyond_the_largest_offset_ends_its_stream(last: int) -> None:
    raw = codec.CHUNK_FRAMES[FrameType.CHUNK].pack(FrameType.CHUNK, 0, 1, 18, last, last, 1) + b"\x01"
    assert stream_failure(with_stream(), raw)[0] is ErrorCode.CHUNK_INVALID


def test_gathering_stops_at_the_largest_offset() -> None:
    rig = with_stream()
    layout = codec.CHUNK_FRAMES[FrameType.CHUNK]
    offsets = range(OFFSET_MAX - 6, OFFSET_MAX + 6)
    raw = b"".join(layout.pack(FrameType.CHUNK, 0, 1, 18, at, at, 1) + b"\x01" for at in offsets)
    events = merged(rig.feed(raw))
    assert events[0] == received(1, OFFSET_MAX - 6, b"\x01" * 6, 6)
    assert isinstance(events[1], StreamFailed)
    assert events[1].code is ErrorCode.CHUNK_INVALID


@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_chunk_beyond_the_declared_size_ends_its_stream(count: int) -> None:
    rig = with_stream(size=count * 4 + 3)
    raw = b"".join(chunk(1, at * 4, b"four") for at in range(count))
    *events, failed = merged(rig.feed(raw + chunk(1, count * 4, b"four")))
    assert events == [received(1, 0, b"four" * count, count)]
    assert isinstance(failed, StreamFailed)
    assert failed.code is ErrorCode.CHUNK_BEYOND_END


def test_equal_chunks_far_beyond_the_end_are_not_gathered() -> None:
    rig = with_stream(size=40)
    events = merged(rig.feed(b"".join(chunk(1, at * 4, b"four") for at in range(30))))
    assert events[0] == received(1, 0, b"four" * 10, 10)
    assert isinstance(events[1], StreamFailed)
    assert len(events) == 2, "what follows belongs to a stream that has ended"


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
@pytest.mark.parametrize("chunk_bytes_max", [10, LIMITS.chunk_bytes_max])
def test_the_chunk_limit_is_exact_for_every_form(kind: FrameType, chunk_bytes_max: int) -> None:
    limits = replace(LIMITS, chunk_bytes_max=chunk_bytes_max)
    data = bytes(chunk_bytes_max + 1)
    (event,) = with_stream(limits=limits).feed(chunk(1, 0, data[:-1], kind))
    assert isinstance(event, ChunksReceived)
    assert (event.start, event.end) == (0, chunk_bytes_max)
    assert failure(with_stream(limits=limits).feed(chunk(1, 0, data, kind))) is ErrorCode.FRAME_TOO_LARGE


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
def test_an_oversized_chunk_is_refused_from_its_prefix(kind: FrameType) -> None:
    length = codec.CHUNK_HEADERS[kind].size + LIMITS.chunk_bytes_max
    assert with_stream().feed(codec.PREFIX.pack(kind, 0, 1, length)) == []
    assert failure(with_stream().feed(codec.PREFIX.pack(kind, 0, 1, length + 1))) is ErrorCode.FRAME_TOO_LARGE


# Corrupt chunks.


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
def test_a_corrupt_chunk_costs_only_that_chunk(kind: FrameType) -> None:
    rig = with_stream()
    events = rig.feed(chunk(1, 0, b"good", kind) + corrupt(1, 4, b"evil", kind) + chunk(1, 8, b"good", kind))
    assert [type(event) for event in events] == [ChunksReceived, ChunkRefused, ChunksReceived]
    ((stream, nack),) = rig.sent()
    assert stream == 1
    assert isinstance(nack, frames.Nack)
    assert (nack.code, nack.start_byte, nack.end_byte, nack.next_expected_byte) == (ErrorCode.CHUNK_CORRUPT, 4, 7, 0)


def test_the_eighth_refusal_of_a_range_ends_the_stream() -> None:
    rig = with_stream()
    for _ in range(NACKS_PER_RANGE_MAX - 1):
        assert rig.feed(corrupt(1, 4, b"evil")) == [ChunkRefused(1, ErrorCode.CHUNK_CORRUPT)]
    assert [type(sent) for _, sent in rig.sent()] == [frames.Nack] * 7
    refused, failed = rig.feed(corrupt(1, 4, b"evil"))
    assert refused == ChunkRefused(1, ErrorCode.CHUNK_CORRUPT)
    assert isinstance(failed, StreamFailed)
    assert failed.code is ErrorCode.NACKS_EXHAUSTED
    ((_, error),) = rig.sent()
    assert isinstance(error, frames.Error)
    assert error.action is Action.REOPEN


def test_chunks_with_the_same_start_but_another_end_are_different_ranges() -> None:
    rig = with_stream()
    for length in range(1, 4 * NACKS_PER_RANGE_MAX):
        assert rig.feed(corrupt(1, 4, bytes(length))) == [ChunkRefused(1, ErrorCode.CHUNK_CORRUPT)]


def test_acknowledging_a_good_copy_resets_the_refusal_count() -> None:
    rig = with_stream()
    for _ in range(3):
        for _ in range(NACKS_PER_RANGE_MAX - 1):
            assert rig.feed(corrupt(1, 4, b"evil")) == [ChunkRefused(1, ErrorCode.CHUNK_CORRUPT)]
        assert rig.feed(chunk(1, 4, b"good")) == [received(1, 4, b"good")]
        rig.connection.acknowledge(1, 0, [Span(4, 8)], 4)
