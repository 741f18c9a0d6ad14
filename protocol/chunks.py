"""Chunk frames out of received memory: checked, and gathered into runs of adjacent bytes. PROTOCOL.md §9."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocol.checksum import (
    Buffer,
    Checksums,
    crc32c,
    crc32c_combine,
    crc32c_rows,
    is_quick_to_combine,
    sum8,
)
from protocol.codec import CHUNK_FRAMES, PREFIX, PREFIX_BYTES
from protocol.constants import OFFSET_MAX, ChecksumKind, FrameType
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived
from protocol.frame_buffer import Lease
from protocol.frames import CHUNK_HEADERS
from protocol.layouts import fixed_fields
from protocol.ranges import Span

CHECKSUM_KINDS = {
    FrameType.CHUNK: ChecksumKind.SUM8,
    FrameType.CHUNK_COMPACT: ChecksumKind.SUM8,
    FrameType.CHUNK_CRC32C: ChecksumKind.CRC32C,
}

_CRC_COVERED_BYTES = CHUNK_FRAMES[FrameType.CHUNK_CRC32C].size - 4  # the checksum itself is not covered

GATHER_FRAMES_MIN = 4
"""Fewer equal frames than this are quicker one by one than as one array."""

GATHER_FRAMES_MAX = 1024
"""Frames in one call. Where few of them fit, the headers of the others are compared in vain: 10 µs for this number."""

GATHER_DATA_BYTES_MAX = 8 * 1024
"""Larger chunks gain nothing from being gathered: the checksum over their bytes outweighs the call."""

PIECES_MAX = 256
"""Pieces in one run; the system takes 1,024 in one write."""

PIECE_BYTES_MIN = 4096
"""Pieces that are smaller on average are joined by one copy, which costs less than handing on each."""

BORROWED_BYTES_MIN = 64 * 1024
"""From this size on data is copied into a lease. Fresh memory from the system each time took ten times as long."""

Piece = memoryview | npt.NDArray[np.uint8]
"""Data of one chunk, or that of equal chunks in rows."""

_HEADER_TYPES = {
    kind: np.dtype([("prefix", ">u8"), *((each.name, f">u{each.size_bytes}") for each in fixed_fields(declared))])
    for kind, declared in CHUNK_HEADERS.items()
}


_BUT_STREAM = np.uint64(0xFFFF_0000_FFFF_FFFF)
"""A prefix without its stream number."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One intact chunk; `end` is exclusive. `crc32c` is that of the data, where it is known."""

    start: int
    end: int
    data: memoryview
    crc32c: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkFault:
    """Why a chunk is not taken. It ends the stream, unless `refused` names the range to be sent again."""

    code: ErrorCode
    detail: str
    refused: Span | None = None


def read_chunk(view: memoryview, begin: int, kind: FrameType, size: int) -> Chunk | ChunkFault:
    """The chunk whose frame lies whole at `begin`, of a file of `size` bytes; or what is wrong with it."""
    layout = CHUNK_FRAMES[kind]
    length = int.from_bytes(view[begin + 4 : begin + PREFIX_BYTES], "big")
    if length <= layout.size - PREFIX_BYTES:
        return ChunkFault(ErrorCode.CHUNK_INVALID, f"a chunk of {length} bytes has no data")
    *_, start, last, checksum = layout.unpack_from(view, begin)
    data = view[begin + layout.size : begin + PREFIX_BYTES + length]
    if last - start + 1 != len(data) or last > OFFSET_MAX - 1:
        return ChunkFault(ErrorCode.CHUNK_INVALID, _contradiction(start, last, len(data)))
    if last >= size:
        return ChunkFault(ErrorCode.CHUNK_BEYOND_END, f"end_byte {last} of a file of {size} bytes")
    own = None
    if kind is not FrameType.CHUNK_CRC32C:
        found = sum8(data)
    else:
        found = crc32c(view[begin : begin + _CRC_COVERED_BYTES])
        if is_quick_to_combine(len(data)):
            # The file's CRC32C takes in the data's own, so that its bytes are read once for both.
            own = crc32c(data)
            found = crc32c_combine(found, own, len(data))
        else:
            found = crc32c(data, found)
    if found != checksum:
        return ChunkFault(ErrorCode.CHUNK_CORRUPT, "the checksum does not fit", Span(start, last + 1))
    return Chunk(start, last + 1, data, own)


def drop_chunk(header: bytes, kind: FrameType, size: int) -> ChunkFault:
    """What to answer to a chunk of a file of `size` bytes of which only prefix and header are left. §9"""
    layout = CHUNK_FRAMES[kind]
    data_bytes = PREFIX_BYTES + int.from_bytes(header[4:PREFIX_BYTES], "big") - layout.size
    *_, start, last, _ = layout.unpack_from(header)
    if last - start + 1 != data_bytes or last > OFFSET_MAX - 1:
        return ChunkFault(ErrorCode.CHUNK_INVALID, _contradiction(start, last, data_bytes))
    if last >= size:
        return ChunkFault(ErrorCode.CHUNK_BEYOND_END, f"end_byte {last} of a file of {size} bytes")
    return ChunkFault(ErrorCode.CHUNK_DROPPED, ErrorCode.CHUNK_DROPPED.summary, Span(start, last + 1))


def _contradiction(start: int, last: int, data_bytes: int) -> str:
    if last < start:
        return f"end_byte {last} is before start_byte {start}"
    if last > OFFSET_MAX - 1:
        return f"end_byte {last} is beyond 2^63-2"
    return f"start_byte {start} and end_byte {last} name {last - start + 1} bytes, {data_bytes} follow"


def is_worth_gathering(kind: FrameType, data_bytes: int, left_bytes: int) -> bool:
    """Whether `gather_equal` pays for chunks of this form and size if `left_bytes` of input may be more of them."""
    return data_bytes <= GATHER_DATA_BYTES_MAX and left_bytes >= GATHER_FRAMES_MIN * (
        CHUNK_FRAMES[kind].size + data_bytes
    )


def gather_equal(view: memoryview, begin: int, end: int, kind: FrameType, first: Chunk) -> tuple[int, Piece]:
    """How many frames from `begin` on are like the first, adjacent and intact, and their data where it lies.

    Takes at most GATHER_FRAMES_MAX. The first must be intact, and no frame like it may reach beyond OFFSET_MAX. One
    array lies over all of them: headers at a fixed stride, checksums along the rows.
    """
    header = CHUNK_FRAMES[kind].size
    data_bytes = first.end - first.start
    stride = header + data_bytes
    count = min((end - begin) // stride, GATHER_FRAMES_MAX)
    headers = np.ndarray((count,), _HEADER_TYPES[kind], view, begin, (stride,))
    if headers["prefix"][1] != headers["prefix"][0] or headers["start_byte"][1] != first.end:
        # Where streams take turns, or chunks come twice or out of order, an array for each does not pay.
        return 1, first.data
    rows = np.ndarray((count, data_bytes), np.uint8, view, begin + header, (stride, 1))
    starts = first.start + np.arange(count, dtype=np.uint64) * np.uint64(data_bytes)
    count = _leading(
        (headers["prefix"] == headers["prefix"][0])
        & (headers["start_byte"] == starts)
        & (headers["end_byte"] == starts + np.uint64(data_bytes - 1))
    )
    # The bytes come last: runs of interleaved streams are short, and would be summed again and again.
    rows = rows[:count]
    count = _leading(_checksums(view, begin, kind, rows) == headers["checksum"][:count])
    return count, rows[:count]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Intact chunks of one stream. Their data, in rows, is one run from `start` up to but not including `end`."""

    stream: int
    start: int
    end: int
    data: npt.NDArray[np.uint8]
    count: int


def take_turns(view: memoryview, begin: int, end: int, kind: FrameType, data_bytes: int) -> bool:
    """Whether the first frames from `begin` on have one size and form, so that `gather_mixed` may pay."""
    stride = CHUNK_FRAMES[kind].size + data_bytes
    if data_bytes > GATHER_DATA_BYTES_MAX or end - begin < GATHER_FRAMES_MIN * stride:
        return False
    expected = (kind, 0, stride - PREFIX_BYTES)
    for at in range(begin + stride, begin + GATHER_FRAMES_MIN * stride, stride):
        code, flags, _, length = PREFIX.unpack_from(view, at)
        if (code, flags, length) != expected:
            return False
    return True


def gather_mixed(
    view: memoryview, begin: int, end: int, kind: FrameType, data_bytes: int, size_of: Callable[[int], int]
) -> tuple[int, list[Gathered]]:
    """How many frames of `data_bytes` each from `begin` on are intact, and their data by stream.

    Frames of different streams may come in any order; those of one stream must be adjacent. `size_of` gives the size of
    a stream's file, or 0 if the stream takes no chunks. Stops before the first frame that does not fit.
    """
    header = CHUNK_FRAMES[kind].size
    stride = header + data_bytes
    count = min((end - begin) // stride, GATHER_FRAMES_MAX)
    headers = np.ndarray((count,), _HEADER_TYPES[kind], view, begin, (stride,))
    prefixes = headers["prefix"].astype(np.uint64)
    starts = headers["start_byte"].astype(np.uint64)
    fits = (prefixes & _BUT_STREAM) == (prefixes[0] & _BUT_STREAM)
    fits &= headers["end_byte"] == starts + np.uint64(data_bytes - 1)
    fits &= starts <= np.uint64(OFFSET_MAX - data_bytes)
    count = _leading(fits)
    streams = (prefixes[:count] >> np.uint64(32)).astype(np.uint16)
    order = np.argsort(streams, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(streams[order])) + 1) if count else []
    for rows in groups:
        run = starts[rows]
        fits = run == run[0] + np.arange(len(rows), dtype=np.uint64) * np.uint64(data_bytes)
        fits &= run + np.uint64(data_bytes) <= np.uint64(min(size_of(int(streams[rows[0]])), OFFSET_MAX))
        if not fits.all():
            count = min(count, int(rows[fits.argmin()]))
    data = np.ndarray((count, data_bytes), np.uint8, view, begin + header, (stride, 1))
    count = _leading(_checksums(view, begin, kind, data) == headers["checksum"][:count])
    found = []
    for rows in groups:
        mine = rows[: np.searchsorted(rows, count)]
        if len(mine):
            start = int(starts[mine[0]])
            end_byte = start + len(mine) * data_bytes
            found.append(Gathered(int(streams[mine[0]]), start, end_byte, data[mine], len(mine)))
    return count, found


def _leading(fits: npt.NDArray[np.bool_]) -> int:
    """The number of frames at the front that fit."""
    return len(fits) if fits.all() else int(fits.argmin())


def _checksums(view: memoryview, begin: int, kind: FrameType, rows: npt.NDArray[np.uint8]) -> Checksums:
    """The right checksum of each of the equal frames at `begin`, whose data are `rows`."""
    if kind is not FrameType.CHUNK_CRC32C:
        sums: Checksums = np.add.reduce(rows, axis=1, dtype=np.uint8)
        return sums
    count, data_bytes = rows.shape
    covered = np.empty((count, _CRC_COVERED_BYTES + data_bytes), np.uint8)
    stride = (CHUNK_FRAMES[kind].size + data_bytes, 1)
    covered[:, :_CRC_COVERED_BYTES] = np.ndarray((count, _CRC_COVERED_BYTES), np.uint8, view, begin, stride)
    covered[:, _CRC_COVERED_BYTES:] = rows
    return crc32c_rows(covered)


@dataclass(slots=True)
class ChunkRun:
    """Adjacent chunks of one stream that are being gathered."""

    stream: int
    checksum: ChecksumKind
    start: int
    end: int
    pieces: list[Piece] = field(default_factory=list)
    count: int = 0
    is_scattered: bool = False
    crc32c: int | None = 0

    def takes(self, stream: int, checksum: ChecksumKind, start: int) -> bool:
        """Whether a chunk that begins at `start` continues this run."""
        return (
            start == self.end and stream == self.stream and checksum is self.checksum and len(self.pieces) < PIECES_MAX
        )

    def add(self, end: int, data: Piece, count: int, crc: int | None = None) -> None:
        """Add `count` chunks with this data, which reach up to `end`. `crc` is its CRC32C, where it is known."""
        self.pieces.append(data)
        known = self.crc32c
        self.crc32c = None if known is None or crc is None else crc32c_combine(known, crc, end - self.end)
        self.end = end
        self.count += count
        self.is_scattered = self.is_scattered or not isinstance(data, memoryview)

    def event(self, lease: Lease | None, borrow: Callable[[int], Lease | None]) -> ChunksReceived:
        """The run as an event, with its data in `lease`, the memory that it was received into.

        Without a lease that memory is about to be reused, so the data is copied; `borrow` lends memory for large runs.
        """
        total = self.end - self.start
        data: tuple[Buffer, ...]
        if lease is not None and not self.is_scattered and total >= PIECE_BYTES_MIN * len(self.pieces):
            lease.retain()
            data = tuple(each for each in self.pieces if isinstance(each, memoryview))
        elif (lease := self._borrowed(total, borrow)) is not None:
            data = (lease.view[:total],)
            self._copy_to(data[0])
        else:
            data = (b"".join(each if isinstance(each, memoryview) else each.tobytes() for each in self.pieces),)
        return ChunksReceived(self.stream, self.start, self.end, data, self.count, self.checksum, lease, self.crc32c)

    def _borrowed(self, total: int, borrow: Callable[[int], Lease | None]) -> Lease | None:
        lease = borrow(total) if total >= BORROWED_BYTES_MIN else None
        if lease is not None and len(lease.view) < total:
            lease.release()
            return None
        return lease

    def _copy_to(self, memory: memoryview) -> None:
        position = 0
        for piece in self.pieces:
            room = memory[position : position + piece.nbytes]
            if isinstance(piece, memoryview):
                room[:] = piece
            else:
                np.frombuffer(room, np.uint8).reshape(piece.shape)[:] = piece
            position += piece.nbytes
