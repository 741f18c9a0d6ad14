"""The frames: as values, and as they lie on the wire, in one declaration. PROTOCOL.md §5, §19.

This is the norm that PROTOCOL.md and the test vectors are checked against. The fields of a frame stand in the order of
the wire. First comes the fixed part: each field's annotation names its layout, declared with construct. Then come the
optional fields (TLVs), which are named as in `TlvType`; one without a default is required. `layouts` and `codec` derive
everything else from here. The hot path does not parse with construct, which takes about 8 µs a header and is not meant
for untrusted input.
"""

from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from construct import Bytes, Int8ub, Int16ub, Int32ub, Int64ub, Struct

from protocol.constants import (
    MAGIC,
    NONCE_BYTES,
    PROOF_BYTES,
    SIZE_UNKNOWN,
    VERSION,
    Action,
    CredentialKind,
    Disposition,
    Durability,
    FrameType,
    UploadState,
)
from protocol.ranges import Span

U8: TypeAlias = Annotated[int, Int8ub]
U16: TypeAlias = Annotated[int, Int16ub]
U32: TypeAlias = Annotated[int, Int32ub]
U64: TypeAlias = Annotated[int, Int64ub]

PREFIX = Struct("type" / Int8ub, "flags" / Int8ub, "stream" / Int16ub, "length" / Int32ub)
"""In front of every frame; `length` counts the bytes that follow the prefix. Frozen for all versions."""

TLV_HEADER = Struct("type" / Int8ub, "length" / Int16ub)
"""In front of every optional field; `length` counts the bytes of the value."""

RANGE = Struct("start_byte" / Int64ub, "end_byte" / Int64ub)
"""One element of the RANGES field; both ends inclusive."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of a connection, from the device. Its fixed part is frozen for all versions."""

    magic: Annotated[bytes, Bytes(len(MAGIC))] = field(default=MAGIC, kw_only=True)
    version_min: U8 = field(default=VERSION, kw_only=True)
    version_max: U8 = field(default=VERSION, kw_only=True)
    credential: Annotated[CredentialKind | int, Int8ub]
    ack_ranges_max: U8 = field(default=0, kw_only=True)
    features: U32
    frame_bytes_max: U32
    token: str | None = None
    tenant: str | None = None
    device: str | None = None
    nonce: bytes | None = None
    agent: str | None = None
    agent_version: str | None = None
    last_end: int | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server takes the device in and names what is in force."""

    version: U8
    durability: Annotated[Durability, Int8ub]
    ranges_max: U16
    streams_max: U16
    keepalive_s: U16
    features: U32
    chunk_bytes_max: U32
    window_bytes: U32
    authority_s: U32
    server_time_ms: U64
    connection_id: U64


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server asks for a proof of the device's secret."""

    nonce: Annotated[bytes, Bytes(NONCE_BYTES)]


@dataclass(frozen=True, slots=True)
class Proof:
    """HMAC-SHA-256 by the device's key over the HELLO and CHALLENGE frames as sent."""

    proof: Annotated[bytes, Bytes(PROOF_BYTES)]


@dataclass(frozen=True, slots=True)
class Refused:
    """The server does not take the device in. Frozen for all versions."""

    code: U16
    action: Annotated[Action, Int8ub]
    version_min: U8
    version_max: U8
    wait_ms: U32
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """A new token for the running connection; same tenant and device."""

    token: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The new token is in force for `authority_s`."""

    authority_s: U32


@dataclass(frozen=True, slots=True)
class Open:
    """Begin or resume the upload of a name on the stream of the frame."""

    disposition: Annotated[Disposition, Int8ub]
    size: U64
    name: str
    tag: bytes | None = None
    sha256: bytes | None = None
    crc32c: int | None = None
    content_type: str | None = None
    external_id: str | None = None
    original_name: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The upload is open, or already complete; where to go on."""

    upload_id: U64
    state: Annotated[UploadState, Int8ub]
    previous: Annotated[UploadState, Int8ub]
    next_expected_byte: U64
    expires_s: U32
    crc32c: int | None = None
    ranges: tuple[Span, ...] | None = None
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """All bytes were sent: check and complete the upload."""

    size: U64
    crc32c: int | None = None
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verifying:
    """The digest is being computed; FINISH may be repeated after `wait_ms`."""

    wait_ms: U32


@dataclass(frozen=True, slots=True)
class Finished:
    """The file is complete, verified and durable; the device may forget it."""

    upload_id: U64
    size: U64
    crc32c: U32
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Ask how far a name is, without opening it."""

    name: str


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to QUERY."""

    upload_id: U64
    state: Annotated[UploadState, Int8ub]
    next_expected_byte: U64
    size: U64 = SIZE_UNKNOWN
    expires_s: U32 = 0
    crc32c: int | None = None
    ranges: tuple[Span, ...] | None = None
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """The device gives the upload up; its bytes are deleted."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The upload is aborted and its bytes are gone."""

    upload_id: U64


@dataclass(frozen=True, slots=True)
class Ack:
    """Every byte below `next_expected_byte` is durable, and so are those of `ranges`."""

    next_expected_byte: U64
    ranges: tuple[Span, ...] | None = None


@dataclass(frozen=True, slots=True)
class Nack:
    """These bytes (both ends inclusive) were refused and must be sent again."""

    code: U16
    start_byte: U64
    end_byte: U64
    next_expected_byte: U64
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG with the same token."""

    token: U32


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to PING."""

    token: U32


@dataclass(frozen=True, slots=True)
class Goaway:
    """The server will close soon: finish what is in flight, come back after `reconnect_ms`."""

    code: U16
    reconnect_ms: U32
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """The stream, or on stream 0 the connection, is over; `action` says what to do."""

    code: U16
    action: Annotated[Action, Int8ub]
    wait_ms: U32
    next_expected_byte: U64 = SIZE_UNKNOWN
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """The header of a chunk in any of its three forms; `end_byte` is inclusive."""

    start_byte: int
    end_byte: int
    checksum: int


CHUNK_HEADERS = {
    FrameType.CHUNK: Struct("start_byte" / Int64ub, "end_byte" / Int64ub, "checksum" / Int8ub),
    FrameType.CHUNK_COMPACT: Struct("start_byte" / Int32ub, "end_byte" / Int32ub, "checksum" / Int8ub),
    FrameType.CHUNK_CRC32C: Struct("start_byte" / Int64ub, "end_byte" / Int64ub, "checksum" / Int32ub),
}
"""The three forms of a chunk's header; the data follows at once."""

ControlFrame = (
    Hello
    | Welcome
    | Challenge
    | Proof
    | Refused
    | Refresh
    | Refreshed
    | Open
    | Opened
    | Finish
    | Verifying
    | Finished
    | Query
    | Status
    | Abort
    | Aborted
    | Ack
    | Nack
    | Ping
    | Pong
    | Goaway
    | Error
)
