"""Every layout of the wire, declared once with construct: the norm that PROTOCOL.md is checked against.

The hot path does not parse with construct (about 8 µs a header, and its compiled parsers are not meant for
untrusted input): `codec` derives `struct` formats from these declarations instead.
"""

from dataclasses import dataclass
from typing import TypeAlias

from construct import Bytes, Int8ub, Int16ub, Int32ub, Int64ub, Struct

from protocol.constants import MAGIC, NONCE_BYTES, PROOF_BYTES, FrameType, TlvType

Declaration: TypeAlias = Struct

PREFIX = Struct("type" / Int8ub, "flags" / Int8ub, "stream" / Int16ub, "length" / Int32ub)
"""In front of every frame; `length` counts the bytes that follow the prefix. Frozen for all versions."""

TLV_HEADER = Struct("type" / Int8ub, "length" / Int16ub)
"""In front of every optional field; `length` counts the bytes of the value."""

RANGE = Struct("start_byte" / Int64ub, "end_byte" / Int64ub)
"""One element of the RANGES field; both ends inclusive."""

CHUNK_HEADERS: dict[FrameType, Declaration] = {
    FrameType.CHUNK: Struct("start_byte" / Int64ub, "end_byte" / Int64ub, "checksum" / Int8ub),
    FrameType.CHUNK_COMPACT: Struct("start_byte" / Int32ub, "end_byte" / Int32ub, "checksum" / Int8ub),
    FrameType.CHUNK_CRC32C: Struct("start_byte" / Int64ub, "end_byte" / Int64ub, "checksum" / Int32ub),
}
"""The three chunk headers; `end_byte` is inclusive and the data follows at once."""


@dataclass(frozen=True, slots=True)
class ControlLayout:
    """A control body: its fixed part, the optional fields it knows, and those of them it cannot do without."""

    fixed: Declaration
    fields: tuple[TlvType, ...] = ()
    required: tuple[TlvType, ...] = ()


_TEXT = (TlvType.TEXT,)

CONTROL_LAYOUTS: dict[FrameType, ControlLayout] = {
    FrameType.HELLO: ControlLayout(
        Struct(
            "magic" / Bytes(len(MAGIC)),
            "version_min" / Int8ub,
            "version_max" / Int8ub,
            "credential" / Int8ub,
            "ack_ranges_max" / Int8ub,
            "features" / Int32ub,
            "frame_bytes_max" / Int32ub,
        ),
        (
            TlvType.TOKEN,
            TlvType.TENANT,
            TlvType.DEVICE,
            TlvType.NONCE,
            TlvType.AGENT,
            TlvType.AGENT_VERSION,
            TlvType.LAST_END,
        ),
    ),
    FrameType.WELCOME: ControlLayout(
        Struct(
            "version" / Int8ub,
            "durability" / Int8ub,
            "ranges_max" / Int16ub,
            "streams_max" / Int16ub,
            "keepalive_s" / Int16ub,
            "features" / Int32ub,
            "chunk_bytes_max" / Int32ub,
            "window_bytes" / Int32ub,
            "authority_s" / Int32ub,
            "server_time_ms" / Int64ub,
            "connection_id" / Int64ub,
        ),
    ),
    FrameType.CHALLENGE: ControlLayout(Struct("nonce" / Bytes(NONCE_BYTES))),
    FrameType.PROOF: ControlLayout(Struct("proof" / Bytes(PROOF_BYTES))),
    FrameType.REFUSED: ControlLayout(
        Struct(
            "code" / Int16ub,
            "action" / Int8ub,
            "version_min" / Int8ub,
            "version_max" / Int8ub,
            "wait_ms" / Int32ub,
        ),
        _TEXT,
    ),
    FrameType.REFRESH: ControlLayout(Struct(), (TlvType.TOKEN,), (TlvType.TOKEN,)),
    FrameType.REFRESHED: ControlLayout(Struct("authority_s" / Int32ub)),
    FrameType.OPEN: ControlLayout(
        Struct("disposition" / Int8ub, "size" / Int64ub),
        (
            TlvType.NAME,
            TlvType.TAG,
            TlvType.SHA256,
            TlvType.CRC32C,
            TlvType.CONTENT_TYPE,
            TlvType.EXTERNAL_ID,
            TlvType.ORIGINAL_NAME,
        ),
        (TlvType.NAME,),
    ),
    FrameType.OPENED: ControlLayout(
        Struct(
            "upload_id" / Int64ub,
            "state" / Int8ub,
            "previous" / Int8ub,
            "next_expected_byte" / Int64ub,
            "expires_s" / Int32ub,
        ),
        (TlvType.CRC32C, TlvType.RANGES, TlvType.SHA256),
    ),
    FrameType.FINISH: ControlLayout(Struct("size" / Int64ub), (TlvType.CRC32C, TlvType.SHA256)),
    FrameType.VERIFYING: ControlLayout(Struct("wait_ms" / Int32ub)),
    FrameType.FINISHED: ControlLayout(
        Struct("upload_id" / Int64ub, "size" / Int64ub, "crc32c" / Int32ub), (TlvType.SHA256,)
    ),
    FrameType.QUERY: ControlLayout(Struct(), (TlvType.NAME,), (TlvType.NAME,)),
    FrameType.STATUS: ControlLayout(
        Struct(
            "upload_id" / Int64ub,
            "state" / Int8ub,
            "next_expected_byte" / Int64ub,
            "size" / Int64ub,
            "expires_s" / Int32ub,
        ),
        (TlvType.CRC32C, TlvType.RANGES, TlvType.SHA256),
    ),
    FrameType.ABORT: ControlLayout(Struct()),
    FrameType.ABORTED: ControlLayout(Struct("upload_id" / Int64ub)),
    FrameType.ACK: ControlLayout(Struct("next_expected_byte" / Int64ub), (TlvType.RANGES,)),
    FrameType.NACK: ControlLayout(
        Struct("code" / Int16ub, "start_byte" / Int64ub, "end_byte" / Int64ub, "next_expected_byte" / Int64ub),
        _TEXT,
    ),
    FrameType.PING: ControlLayout(Struct("token" / Int32ub)),
    FrameType.PONG: ControlLayout(Struct("token" / Int32ub)),
    FrameType.GOAWAY: ControlLayout(Struct("code" / Int16ub, "reconnect_ms" / Int32ub), _TEXT),
    FrameType.ERROR: ControlLayout(
        Struct("code" / Int16ub, "action" / Int8ub, "wait_ms" / Int32ub, "next_expected_byte" / Int64ub),
        _TEXT,
    ),
}
"""Every frame that is not a chunk. A body is the fixed part, then optional fields (TLVs) in any order, each once."""


@dataclass(frozen=True, slots=True)
class FixedField:
    """One field of a fixed part, as `codec` and the documents need it."""

    name: str
    format: str
    size_bytes: int


def fixed_fields(layout: Declaration) -> tuple[FixedField, ...]:
    """The fields of a declaration in order, with the `struct` format of each (without byte order)."""
    fields = []
    for renamed in layout.subcons:
        declared = renamed.subcon
        code = f"{declared.length}s" if isinstance(declared, Bytes) else declared.fmtstr.lstrip(">")
        fields.append(FixedField(renamed.name, code, declared.sizeof()))
    return tuple(fields)
