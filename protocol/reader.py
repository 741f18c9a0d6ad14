"""Whole frames out of received bytes: the prefix is judged before its length is trusted. PROTOCOL.md §5 and §17."""

from typing import NamedTuple

from protocol.codec import CHUNK_FRAMES, PREFIX, PREFIX_BYTES
from protocol.constants import CONTROL_FRAME_BYTES_MAX, SKIPPABLE, FrameType
from protocol.errors import ErrorCode
from protocol.exceptions import ProtocolError
from protocol.frame_buffer import BufferSource, FrameBuffer

_TYPES = {int(kind): kind for kind in FrameType}


class Head(NamedTuple):
    """A whole frame at the front of the buffer. `type` is None for an unknown type that may be skipped."""

    type: FrameType | None
    stream: int
    frame_bytes: int


class FrameReader:
    """Finds frames at the front of a buffer. `chunk_bytes_max` is the most data of a chunk, 0 where none may come."""

    __slots__ = ("_frame_bytes", "buffer", "chunk_bytes_max")

    def __init__(self, source: BufferSource) -> None:
        self.buffer = FrameBuffer(source)
        self.chunk_bytes_max = 0
        self._frame_bytes = 0

    def next(self) -> Head | None:
        """The frame at the front, once it is whole.

        Raises ProtocolError FRAME_MALFORMED, FRAME_TOO_LARGE or FRAME_UNKNOWN.
        """
        buffer = self.buffer
        if buffer.end - buffer.begin < PREFIX_BYTES:
            return None
        code, flags, stream, length = PREFIX.unpack_from(buffer.view, buffer.begin)
        kind = _TYPES.get(code)
        if flags:
            raise ProtocolError(ErrorCode.FRAME_MALFORMED, f"flags 0x{flags:02x} are set; version 1 has none")
        if kind is None and not code & SKIPPABLE:
            raise ProtocolError(ErrorCode.FRAME_UNKNOWN, f"type 0x{code:02x}")
        self._frame_bytes = frame_bytes = PREFIX_BYTES + length
        largest = CONTROL_FRAME_BYTES_MAX
        if self.chunk_bytes_max and kind is not None and (header := CHUNK_FRAMES.get(kind)) is not None:
            largest = header.size + self.chunk_bytes_max
        if frame_bytes > largest:
            raise ProtocolError(ErrorCode.FRAME_TOO_LARGE, f"a frame of {frame_bytes} bytes, {largest} are allowed")
        return Head(kind, stream, frame_bytes) if buffer.end - buffer.begin >= frame_bytes else None

    def body(self, head: Head) -> bytes:
        """The body of the frame at the front, copied."""
        begin = self.buffer.begin
        return bytes(self.buffer.view[begin + PREFIX_BYTES : begin + head.frame_bytes])

    def raw(self, head: Head) -> bytes:
        """The frame at the front with its prefix, copied."""
        return bytes(self.buffer.view[self.buffer.begin : self.buffer.begin + head.frame_bytes])

    def consume(self, count: int) -> None:
        """Drop the first `count` bytes."""
        self.buffer.begin += count

    def discard(self) -> None:
        """Drop all that was received, and borrow no memory for the rest of a frame."""
        self.buffer.begin = self.buffer.end
        self.buffer.missing_bytes = 0
        self._frame_bytes = 0

    def save_rest(self) -> bool:
        """Take nothing more for now, and keep what is left. Returns whether that is part of a frame."""
        left = self.buffer.end - self.buffer.begin
        self.buffer.save(max(left, self._frame_bytes))
        return left > 0 or self.buffer.missing_bytes > 0
