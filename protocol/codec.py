"""Encodes and decodes frames with `struct` formats derived from the declarations. PROTOCOL.md §5."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from struct import Struct
from struct import error as StructError  # noqa: N812 - the bare name `error` says too little

from protocol import frames, layouts
from protocol.checksum import Buffer, crc32c, sum8
from protocol.constants import (
    AGENT_BYTES_MAX,
    NONCE_BYTES,
    OFFSET_MAX,
    SKIPPABLE,
    TEXT_BYTES_MAX,
    FrameType,
    TlvType,
)
from protocol.errors import ErrorCode
from protocol.exceptions import LocalProtocolError, ProtocolError
from protocol.ranges import Span

Value = int | str | bytes | tuple[Span, ...]


def _struct_of(*declarations: layouts.Declaration) -> Struct:
    fields = [field for declared in declarations for field in layouts.fixed_fields(declared)]
    return Struct(">" + "".join(field.format for field in fields))


PREFIX = _struct_of(frames.PREFIX)
PREFIX_BYTES = PREFIX.size
_TLV_HEADER = _struct_of(frames.TLV_HEADER)
_RANGE = _struct_of(frames.RANGE)

CHUNK_HEADERS = {kind: _struct_of(declared) for kind, declared in frames.CHUNK_HEADERS.items()}
CHUNK_FRAMES = {kind: _struct_of(frames.PREFIX, declared) for kind, declared in frames.CHUNK_HEADERS.items()}
"""Prefix and chunk header in one format, for the hot path."""

_ACK = _struct_of(frames.PREFIX, layouts.CONTROL_LAYOUTS[FrameType.ACK].fixed)


@dataclass(frozen=True, slots=True)
class _Coding:
    encode: Callable[..., bytes]
    decode: Callable[[bytes], Value]


def _shown(bytes_max: int) -> _Coding:
    """Text for people only: cut to `bytes_max` when sent; invalid UTF-8 is replaced when received."""
    return _Coding(
        lambda value: value.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore").encode(),
        lambda raw: raw.decode("utf-8", "replace"),
    )


def _number(size_bytes: int) -> _Coding:
    def decode(raw: bytes) -> int:
        if len(raw) != size_bytes:
            raise ValueError(f"{len(raw)} bytes instead of {size_bytes}")
        return int.from_bytes(raw, "big")

    return _Coding(lambda value: value.to_bytes(size_bytes, "big"), decode)


def _fixed_bytes(size_bytes: int) -> _Coding:
    def decode(raw: bytes) -> bytes:
        if len(raw) != size_bytes:
            raise ValueError(f"{len(raw)} bytes instead of {size_bytes}")
        return raw

    return _Coding(bytes, decode)


def _encode_ranges(ranges: tuple[Span, ...]) -> bytes:
    return b"".join(_RANGE.pack(each.start, each.end - 1) for each in ranges)


def _decode_ranges(raw: bytes) -> tuple[Span, ...]:
    if len(raw) % _RANGE.size:
        raise ValueError(f"{len(raw)} bytes are not a whole number of ranges")
    spans = tuple(Span(first, last + 1) for first, last in _RANGE.iter_unpack(raw))
    if any(span.start >= span.end for span in spans):
        raise ValueError("a range ends before it starts")
    return spans


# Decode invalid UTF-8 reversibly, so that such names reach the name check, which refuses only the stream.
_KEPT = _Coding(
    lambda value: value.encode("utf-8", "surrogateescape"), lambda raw: raw.decode("utf-8", "surrogateescape")
)

_CODINGS: dict[TlvType, _Coding] = {
    TlvType.TOKEN: _KEPT,
    TlvType.TENANT: _KEPT,
    TlvType.DEVICE: _KEPT,
    TlvType.NONCE: _fixed_bytes(NONCE_BYTES),
    TlvType.NAME: _KEPT,
    TlvType.TAG: _Coding(bytes, bytes),
    TlvType.SHA256: _fixed_bytes(32),
    TlvType.CRC32C: _number(4),
    TlvType.CONTENT_TYPE: _KEPT,
    TlvType.EXTERNAL_ID: _KEPT,
    TlvType.ORIGINAL_NAME: _KEPT,
    TlvType.RANGES: _Coding(_encode_ranges, _decode_ranges),
    TlvType.AGENT: _shown(AGENT_BYTES_MAX),
    TlvType.AGENT_VERSION: _shown(AGENT_BYTES_MAX),
    TlvType.LAST_END: _number(2),
    TlvType.TEXT: _shown(TEXT_BYTES_MAX),
}


def _cut_to(room: int, kind: TlvType, raw: bytes) -> bytes | None:
    """The part of a field that fits into `room` bytes: whole ranges of RANGES, all or nothing of any other field."""
    if len(raw) <= room:
        return raw
    if kind is TlvType.RANGES and room >= _RANGE.size:
        return raw[: room - room % _RANGE.size]
    return None


class _ControlCodec:
    """Encodes and decodes one type of control frame."""

    __slots__ = ("_enumerations", "_fixed", "_frame", "_known", "_names", "_optional", "_required", "_type", "_values")

    def __init__(self, kind: FrameType, layout: layouts.ControlLayout) -> None:
        self._type = kind
        self._frame = layout.frame
        self._fixed = _struct_of(layout.fixed)
        self._names = tuple(field.name for field in layouts.fixed_fields(layout.fixed))
        self._values = [attrgetter(name) for name in self._names]
        self._enumerations = layout.enumerations
        self._optional = [(tlv, _CODINGS[tlv].encode, attrgetter(tlv.name.lower())) for tlv in layout.fields]
        self._known = {int(tlv): (tlv.name.lower(), _CODINGS[tlv].decode) for tlv in layout.fields}
        self._required = frozenset(tlv.name.lower() for tlv in layout.required)

    def encode(self, frame: frames.ControlFrame, stream: int, frame_bytes_max: int | None) -> bytes:
        body = self._fixed.pack(*[value(frame) for value in self._values])
        room = None if frame_bytes_max is None else frame_bytes_max - PREFIX_BYTES - len(body)
        for kind, encoded, value_of in self._optional:
            value = value_of(frame)
            if value is None:
                continue
            raw = encoded(value)
            if room is not None:
                fitting = _cut_to(room - _TLV_HEADER.size, kind, raw)
                if fitting is None:
                    continue
                raw = fitting
                room -= len(raw) + _TLV_HEADER.size
            body += _TLV_HEADER.pack(kind, len(raw)) + raw
        return PREFIX.pack(self._type, 0, stream, len(body)) + body

    def decode(self, body: bytes) -> frames.ControlFrame:
        if len(body) < self._fixed.size:
            raise self._malformed(f"{len(body)} bytes where the fixed part has {self._fixed.size}")
        fixed = dict(zip(self._names, self._fixed.unpack_from(body), strict=True))
        values: dict[str, Value] = dict(fixed)
        try:
            for name, kinds in self._enumerations:
                values[name] = kinds(fixed[name])
            self._decode_optional(body, values)
        except (StructError, ValueError) as cause:
            raise self._malformed(str(cause)) from cause
        if missing := self._required - values.keys():
            raise self._malformed(f"required field {', '.join(sorted(missing))} is missing")
        return self._frame(**values)  # type: ignore[arg-type]  # a test compares the declaration with the dataclass

    def _decode_optional(self, body: bytes, values: dict[str, Value]) -> None:
        position = self._fixed.size
        while position < len(body):
            kind, length = _TLV_HEADER.unpack_from(body, position)
            position += _TLV_HEADER.size
            raw = body[position : position + length]
            position += length
            if len(raw) < length:
                raise ValueError(f"field 0x{kind:02x} is cut short")
            known = self._known.get(kind)
            if known is None:
                if kind & SKIPPABLE:
                    continue
                raise ValueError(f"field 0x{kind:02x} is unknown and must not be skipped")
            name, decoded = known
            if name in values:
                raise ValueError(f"field {name} comes twice")
            values[name] = decoded(raw)

    def _malformed(self, detail: str) -> ProtocolError:
        return ProtocolError(ErrorCode.FRAME_MALFORMED, f"{self._type.name}: {detail}")


_CODECS = {kind: _ControlCodec(kind, layout) for kind, layout in layouts.CONTROL_LAYOUTS.items()}
_TYPES = {layout.frame: kind for kind, layout in layouts.CONTROL_LAYOUTS.items()}


def encode(frame: frames.ControlFrame, stream: int = 0, frame_bytes_max: int | None = None) -> bytes:
    """The frame with its prefix.

    Leaves out optional fields that would make it larger than `frame_bytes_max`; RANGES keeps the ranges that fit.
    """
    return _CODECS[_TYPES[type(frame)]].encode(frame, stream, frame_bytes_max)


def decode(kind: FrameType, body: bytes) -> frames.ControlFrame:
    """The control frame of type `kind` with this body. Raises ProtocolError FRAME_MALFORMED."""
    return _CODECS[kind].decode(body)


def encode_ack(stream: int, next_expected_byte: int) -> bytes:
    """An ACK without ranges: the frame that is sent most often, so it has a fast path."""
    return _ACK.pack(FrameType.ACK, 0, stream, _ACK.size - PREFIX_BYTES, next_expected_byte)


def encode_chunk_header(kind: FrameType, stream: int, start: int, data: Buffer) -> bytes:
    """Prefix and header of a chunk that holds `data` from byte `start`. The caller sends `data` after them.

    Raises LocalProtocolError when the data is empty or exceeds the form's offsets.
    """
    layout = CHUNK_FRAMES[kind]
    length = CHUNK_HEADERS[kind].size + len(data)
    end = start + len(data) - 1
    if not data:
        raise LocalProtocolError("a chunk holds at least one byte")
    if end >= OFFSET_MAX:
        raise LocalProtocolError(f"bytes {start}-{end} make the file larger than 2^63-1 bytes")
    try:
        if kind is not FrameType.CHUNK_CRC32C:
            return layout.pack(kind, 0, stream, length, start, end, sum8(data))
        covered = layout.pack(kind, 0, stream, length, start, end, 0)[:-4]
    except StructError as cause:
        raise LocalProtocolError(f"bytes {start}-{end} do not fit the offsets of {kind.name}") from cause
    return covered + crc32c(data, crc32c(covered)).to_bytes(4, "big")
