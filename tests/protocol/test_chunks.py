"""Chunk frames: inconsistent headers, gathering, and the data of a run. PROTOCOL.md §9."""

from collections.abc import Callable

import numpy as np
import pytest

from protocol import codec
from protocol.checksum import COMBINED_BYTES_MIN, crc32c, is_quick_to_combine
from protocol.chunks import (
    BORROWED_BYTES_MIN,
    GATHER_DATA_BYTES_MAX,
    GATHER_FRAMES_MAX,
    GATHER_FRAMES_MIN,
    PIECE_BYTES_MIN,
    PIECES_MAX,
    Chunk,
    ChunkFault,
    ChunkRun,
    gather_equal,
    gather_mixed,
    is_worth_gathering,
    read_chunk,
    take_turns,
)
from protocol.constants import OFFSET_MAX, SIZE_UNKNOWN, ChecksumKind, FrameType
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.support.server_rig import Pool, Refusal, chunk, corrupt, frame

FORMS = tuple(codec.CHUNK_HEADERS)


def read(raw: bytes, kind: FrameType = FrameType.CHUNK, begin: int = 0, size: int = SIZE_UNKNOWN) -> Chunk | ChunkFault:
    return read_chunk(memoryview(raw), begin, kind, size)


@pytest.mark.parametrize("kind", FORMS)
def test_a_chunk_is_read_without_a_copy(kind: FrameType) -> None:
    raw = b"before" + chunk(1, 1000, b"payload", kind)
    assert read(raw, kind, begin=6) == Chunk(1000, 1007, memoryview(b"payload"))


@pytest.mark.parametrize("kind", FORMS)
def test_a_wrong_checksum_and_a_wrong_header_are_different_faults(kind: FrameType) -> None:
    found = read(corrupt(1, 10, b"payload", kind), kind)
    assert isinstance(found, ChunkFault)
    assert (found.code, found.refused) == (ErrorCode.CHUNK_CORRUPT, Span(10, 17))


@pytest.mark.parametrize("kind", FORMS)
def test_a_chunk_beyond_the_end_of_the_file_is_refused_whatever_its_checksum(kind: FrameType) -> None:
    assert isinstance(read(chunk(1, 10, b"payload", kind), kind, size=17), Chunk)
    for raw in (chunk(1, 10, b"payload", kind), corrupt(1, 10, b"payload", kind)):
        found = read(raw, kind, size=16)
        assert found == ChunkFault(ErrorCode.CHUNK_BEYOND_END, "end_byte 16 of a file of 16 bytes")


@pytest.mark.parametrize("size", [COMBINED_BYTES_MIN, COMBINED_BYTES_MIN + 1, 3 * COMBINED_BYTES_MIN])
def test_a_large_chunk_is_verified_with_or_without_a_separate_crc_of_its_data(size: int) -> None:
    data, kind = bytes(range(256)) * (size // 256) + bytes(size % 256), FrameType.CHUNK_CRC32C
    own = crc32c(data) if is_quick_to_combine(size) else None
    assert read(chunk(1, 5, data, kind), kind) == Chunk(5, 5 + size, memoryview(data), crc32c=own)
    for position in (0, 8, 20, 24, 28, -1):
        raw = bytearray(chunk(1, 5, data, kind))
        raw[position] ^= 0x10
        found = read(bytes(raw), kind)
        assert isinstance(found, ChunkFault)


@pytest.mark.parametrize("position", range(8 + 16))
def test_crc32c_covers_every_byte_of_prefix_and_offsets(position: int) -> None:
    kind = FrameType.CHUNK_CRC32C
    raw = bytearray(chunk(1, 0, b"payload", kind))
    raw[position] ^= 1
    if position in range(4, 8):  # the length: the frame takes in bytes that follow it, or leaves out some of its own
        raw += bytes(2**24 + 1) if position == 4 else bytes(2**17)
    found = read(bytes(raw), kind)
    assert isinstance(found, ChunkFault)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize(
    ("end_byte", "reason"),
    [
        (99, "end_byte 99 is before start_byte 100"),
        (0, "end_byte 0 is before start_byte 100"),
        (100, "name 1 bytes, 4 follow"),
        (104, "name 5 bytes, 4 follow"),
        (2**32 - 1, "4 follow"),
    ],
)
def test_an_inconsistent_header_is_refused_with_the_reason(kind: FrameType, end_byte: int, reason: str) -> None:
    found = read(chunk(1, 100, b"four", kind, Refusal(end_byte=end_byte)), kind)
    assert isinstance(found, ChunkFault)
    assert found.code is ErrorCode.CHUNK_INVALID
    assert found.refused is None
    assert reason in found.detail


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("missing", [0, 1])
def test_an_empty_chunk_is_refused(kind: FrameType, missing: int) -> None:
    raw = frame(kind, bytes(codec.CHUNK_HEADERS[kind].size - missing), stream=1)
    assert read(raw, kind) == ChunkFault(ErrorCode.CHUNK_INVALID, f"a chunk of {len(raw) - 8} bytes has no data")


@pytest.mark.parametrize("kind", [FrameType.CHUNK, FrameType.CHUNK_CRC32C])
def test_the_last_byte_of_the_largest_file_has_the_highest_valid_offset(kind: FrameType) -> None:
    last = read(chunk(1, OFFSET_MAX - 1, b"x", kind), kind)
    assert isinstance(last, Chunk)
    assert last.end == OFFSET_MAX
    header = bytearray(codec.CHUNK_FRAMES[kind].size)
    codec.CHUNK_FRAMES[kind].pack_into(header, 0, kind, 0, 1, codec.CHUNK_HEADERS[kind].size + 1, *[OFFSET_MAX] * 2, 0)
    assert read(bytes(header) + b"x", kind) == ChunkFault(
        ErrorCode.CHUNK_INVALID, f"end_byte {OFFSET_MAX} is beyond 2^63-2"
    )


def test_the_compact_form_reaches_the_last_byte_below_four_gib() -> None:
    found = read(chunk(1, 2**32 - 4, b"four", FrameType.CHUNK_COMPACT), FrameType.CHUNK_COMPACT)
    assert isinstance(found, Chunk)
    assert found.end == 2**32


# Gathering.


def gathered(frames: list[bytes], kind: FrameType = FrameType.CHUNK, rest: bytes = b"") -> tuple[int, bytes]:
    raw = b"!" + b"".join(frames) + rest
    first = read(raw, kind, begin=1)
    assert isinstance(first, Chunk)
    count, data = gather_equal(memoryview(raw), 1, len(raw), kind, first)
    return count, data.tobytes()


def adjacent(count: int, size: int, kind: FrameType = FrameType.CHUNK, start: int = 0) -> list[bytes]:
    return [chunk(1, start + at * size, bytes([at % 251]) * size, kind) for at in range(count)]


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("size", [1, 7, 64, 1024])
def test_adjacent_chunks_of_one_size_are_gathered_into_one_piece(kind: FrameType, size: int) -> None:
    expected = b"".join(bytes([at % 251]) * size for at in range(300))
    assert gathered(adjacent(300, size, kind, start=5), kind, rest=b"\x20\x00") == (300, expected)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda kind: corrupt(1, 28, b"wrong!!", kind), id="corrupt"),
        pytest.param(lambda kind: chunk(1, 35, b"further", kind), id="not adjacent"),
        pytest.param(lambda kind: chunk(2, 28, b"another", kind), id="of another stream"),
        pytest.param(lambda kind: chunk(1, 28, b"short", kind) + bytes(2), id="shorter"),
        pytest.param(lambda kind: chunk(1, 28, b"lying!!", kind, Refusal(end_byte=33)), id="lying"),
        pytest.param(lambda kind: frame(FrameType.PING, bytes(4)) + bytes(20), id="a control frame"),
    ],
)
def test_gathering_stops_before_a_frame_that_differs(kind: FrameType, odd: object) -> None:
    assert callable(odd)
    frames = adjacent(4, 7, kind)
    behind = [chunk(1, 35, b"behind!", kind)]
    count, data = gathered([*frames, odd(kind), *behind], kind)
    assert (count, len(data)) == (4, 28)


# Gathering across streams.


def mixed(frames: list[bytes], kind: FrameType, sizes: dict[int, int]) -> tuple[int, dict[int, tuple[int, bytes]]]:
    """How many frames were gathered, and the start and the data of each stream."""
    raw = b"!" + b"".join(frames)
    first = read(raw, kind, begin=1)
    assert isinstance(first, Chunk)
    count, found = gather_mixed(
        memoryview(raw), 1, len(raw), kind, len(first.data), lambda number: sizes.get(number, 0)
    )
    assert sum(each.count for each in found) == count
    assert all(each.end - each.start == each.data.size for each in found)
    return count, {each.stream: (each.start, each.data.tobytes()) for each in found}


def turns(streams: tuple[int, ...], rounds: int, size: int, kind: FrameType) -> list[bytes]:
    """Chunks of each stream in turn, whose data names the stream and the round."""
    return [
        chunk(number, 100 * number + at * size, bytes([number, at % 251] * size)[:size], kind)
        for at in range(rounds)
        for number in streams
    ]


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_of_streams_that_take_turns_are_gathered_by_stream(kind: FrameType, size: int) -> None:
    expected = {
        number: (100 * number, b"".join(bytes([number, at % 251] * size)[:size] for at in range(50)))
        for number in (7, 1)
    }
    count, found = mixed(turns((7, 1), 50, size, kind), kind, {7: SIZE_UNKNOWN, 1: SIZE_UNKNOWN})
    assert (count, found) == (100, expected)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda kind: corrupt(1, 140, b"wrong!!", kind), id="corrupt"),
        pytest.param(lambda kind: chunk(1, 141, b"further", kind), id="not adjacent"),
        pytest.param(lambda kind: chunk(1, 135, b"a copy!", kind), id="a copy"),
        pytest.param(lambda kind: chunk(3, 0, b"unknown", kind), id="of a stream that takes none"),
        pytest.param(lambda kind: chunk(4, 94, b"too far", kind), id="beyond the end of its file"),
        pytest.param(lambda kind: chunk(1, 140, b"longer one", kind), id="of another size"),
        pytest.param(lambda kind: chunk(1, 140, b"liar!!!", kind, Refusal(end_byte=147)), id="with another end"),
        pytest.param(lambda kind: frame(FrameType.PING, bytes(4)), id="no chunk"),
    ],
)
def test_gathering_across_streams_stops_before_a_frame_that_differs(
    kind: FrameType, odd: Callable[[FrameType], bytes]
) -> None:
    size = 7
    frames = [chunk(number, 100 + at * size, b"equal!!", kind) for at in range(20) for number in (1, 2)]
    frames.insert(11, odd(kind))
    count, found = mixed(frames, kind, {1: SIZE_UNKNOWN, 2: SIZE_UNKNOWN, 4: 100})
    assert count == 11
    assert found == {1: (100, b"equal!!" * 6), 2: (100, b"equal!!" * 5)}


@pytest.mark.parametrize("kind", FORMS)
def test_only_chunks_of_one_form_and_size_are_worth_gathering_across_streams(kind: FrameType) -> None:
    def worth(frames: list[bytes], size: int = 7) -> bool:
        raw = b"".join(frames)
        return take_turns(memoryview(raw), 0, len(raw), kind, size)

    frames = turns((1, 2), GATHER_FRAMES_MIN, 7, kind)
    assert worth(frames[:GATHER_FRAMES_MIN])
    assert not worth(frames[: GATHER_FRAMES_MIN - 1])
    assert not worth([*frames[:2], chunk(2, 0, b"longer one", kind), *frames[2:]])
    assert not worth([*frames[:2], frame(FrameType.PING, bytes(4)), *frames[2:]])


def test_only_enough_small_chunks_are_gathered() -> None:
    frame_bytes = 8 + 17 + 100
    assert is_worth_gathering(FrameType.CHUNK, 100, GATHER_FRAMES_MIN * frame_bytes)
    assert not is_worth_gathering(FrameType.CHUNK, 100, GATHER_FRAMES_MIN * frame_bytes - 1)
    assert is_worth_gathering(FrameType.CHUNK, GATHER_DATA_BYTES_MAX, 2**30)
    assert not is_worth_gathering(FrameType.CHUNK, GATHER_DATA_BYTES_MAX + 1, 2**30)


# Runs.


def lend_nothing(_: int) -> None:
    """A pool that lends nothing."""


@pytest.mark.parametrize("kind", FORMS)
def test_one_call_gathers_a_bounded_number_of_chunks(kind: FrameType) -> None:
    count, data = gathered(adjacent(GATHER_FRAMES_MAX + 5, 3, kind), kind)
    assert (count, len(data)) == (GATHER_FRAMES_MAX, 3 * GATHER_FRAMES_MAX)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("start", [0, 6, 12])
def test_a_chunk_without_an_adjacent_successor_is_taken_alone(kind: FrameType, start: int) -> None:
    assert gathered([chunk(1, 6, b"first!", kind), *adjacent(9, 6, kind, start)], kind) == (
        (10, b"first!" + b"".join(bytes([at]) * 6 for at in range(9))) if start == 12 else (1, b"first!")
    )


def test_only_chunks_too_large_to_gather_carry_a_crc_of_their_data() -> None:
    assert GATHER_DATA_BYTES_MAX < COMBINED_BYTES_MIN


def run_of(*pieces: bytes) -> ChunkRun:
    run = ChunkRun(1, ChecksumKind.SUM8, 100, 100)
    for piece in pieces:
        run.add(run.end + len(piece), memoryview(bytearray(piece)), 1)
    return run


def test_a_run_continues_at_the_next_byte_of_the_same_stream_and_checksum_form() -> None:
    run = run_of(b"ten bytes.")
    assert run.takes(1, ChecksumKind.SUM8, 110)
    assert not run.takes(1, ChecksumKind.SUM8, 111)
    assert not run.takes(2, ChecksumKind.SUM8, 110)
    assert not run.takes(1, ChecksumKind.CRC32C, 110)


def test_a_run_has_no_more_pieces_than_one_write_accepts() -> None:
    run = run_of(*[b"x"] * PIECES_MAX)
    assert not run.takes(1, ChecksumKind.SUM8, run.end)


def test_large_pieces_are_passed_on_with_a_hold_on_their_lease() -> None:
    pool = Pool()
    lease = pool.lease(1)
    assert lease is not None
    large = bytes(PIECE_BYTES_MIN)
    event = run_of(large, large).event(lease, lend_nothing)
    assert event.lease is lease
    assert event.data == (large, large)
    assert (event.stream, event.start, event.end, event.count) == (1, 100, 100 + 2 * PIECE_BYTES_MIN, 2)
    lease.release()
    assert pool.lent == 1
    event.lease.release()
    assert pool.lent == 0


@pytest.mark.parametrize("pieces", [[b"a"], [b"small", b"pieces"], [bytes(PIECE_BYTES_MIN), b"x"]])
def test_small_pieces_are_copied_so_that_they_outlive_the_lease(pieces: list[bytes]) -> None:
    lease = Pool().lease(1)
    assert lease is not None
    event = run_of(*pieces).event(lease, lend_nothing)
    assert event.lease is None
    assert event.data == (b"".join(pieces),)
    assert isinstance(event.data[0], bytes)
    assert lease.holders == 1


def test_without_a_lease_large_pieces_are_copied_too() -> None:
    event = run_of(bytes(PIECE_BYTES_MIN)).event(None, lend_nothing)
    assert event.lease is None
    assert isinstance(event.data[0], bytes)


def test_a_run_has_a_crc_if_every_piece_has_one() -> None:
    pieces = [b"piece 1", b"and another", b"3"]
    run = ChunkRun(1, ChecksumKind.CRC32C, 0, 0)
    for piece in pieces:
        run.add(run.end + len(piece), memoryview(piece), 1, crc32c(piece))
        assert run.event(None, lend_nothing).crc32c == crc32c(b"".join(pieces)[: run.end])
    run.add(run.end + 1, memoryview(b"x"), 1)
    assert run.event(None, lend_nothing).crc32c is None
    run.add(run.end + 1, memoryview(b"y"), 1, crc32c(b"y"))
    assert run.event(None, lend_nothing).crc32c is None


def mixed_run(total: int) -> tuple[ChunkRun, bytes]:
    """A run of one piece, separate rows and another piece; and its bytes."""
    memory = np.arange(2 * total, dtype=np.uint32).astype(np.uint8)
    rows = memory[: 2 * (total - 14)].reshape(-1, 4)[:, 1:3]
    run = ChunkRun(1, ChecksumKind.SUM8, 0, 0)
    run.add(7, memoryview(b"piece 1"), 1)
    run.add(7 + rows.size, rows, len(rows))
    run.add(total, memoryview(b"piece 2"), 1)
    return run, b"piece 1" + rows.tobytes() + b"piece 2"


def test_a_large_copy_goes_into_borrowed_memory() -> None:
    pool = Pool()
    run, expected = mixed_run(BORROWED_BYTES_MIN)
    event = run.event(None, pool.lease)
    assert [bytes(each) for each in event.data] == [expected]
    assert event.lease is not None
    assert pool.lent == 1
    event.lease.release()
    assert pool.lent == 0


def test_rows_are_copied_even_from_leased_memory() -> None:
    pool = Pool()
    lease = pool.lease(1)
    run, expected = mixed_run(BORROWED_BYTES_MIN)
    event = run.event(lease, pool.lease)
    assert event.lease is not lease
    assert [bytes(each) for each in event.data] == [expected]


@pytest.mark.parametrize(
    ("total", "pool"),
    [
        pytest.param(BORROWED_BYTES_MIN - 2, Pool(), id="too little to be worth it"),
        pytest.param(BORROWED_BYTES_MIN, Pool(leases_max=0), id="nothing to lend"),
        pytest.param(BORROWED_BYTES_MIN, Pool(lease_bytes=BORROWED_BYTES_MIN - 1), id="no lease is large enough"),
    ],
)
def test_otherwise_the_copy_gets_memory_of_its_own(total: int, pool: Pool) -> None:
    run, expected = mixed_run(total)
    event = run.event(None, pool.lease)
    assert (event.data, event.lease) == ((expected,), None)
    assert isinstance(event.data[0], bytes)
    assert pool.lent == 0
