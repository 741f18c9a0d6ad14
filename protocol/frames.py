"""The frames as values. Field names are those of `layouts`; optional fields (TLVs) come last. PROTOCOL.md §5."""

from dataclasses import dataclass

from protocol.constants import (
    MAGIC,
    SIZE_UNKNOWN,
    VERSION,
    Action,
    CredentialKind,
    Disposition,
    Durability,
    UploadState,
)
from protocol.ranges import Span


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of a connection, from the device. Frozen for all versions."""

    credential: CredentialKind | int
    features: int
    frame_bytes_max: int
    ack_ranges_max: int = 0
    version_min: int = VERSION
    version_max: int = VERSION
    magic: bytes = MAGIC
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

    version: int
    durability: Durability
    ranges_max: int
    streams_max: int
    keepalive_s: int
    features: int
    chunk_bytes_max: int
    window_bytes: int
    authority_s: int
    server_time_ms: int
    connection_id: int


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server asks for a proof of the device's secret."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """HMAC-SHA-256 by the device's key over the HELLO and CHALLENGE frames as sent."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The server does not take the device in. Frozen for all versions."""

    code: int
    action: Action
    version_min: int
    version_max: int
    wait_ms: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """A new token for the running connection; same tenant and device."""

    token: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The new token is in force for `authority_s`."""

    authority_s: int


@dataclass(frozen=True, slots=True)
class Open:
    """Begin or resume the upload of a name on the stream of the frame."""

    disposition: Disposition
    size: int
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

    upload_id: int
    state: UploadState
    previous: UploadState
    next_expected_byte: int
    expires_s: int
    crc32c: int | None = None
    ranges: tuple[Span, ...] | None = None
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """All bytes were sent: check and complete the upload."""

    size: int
    crc32c: int | None = None
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verifying:
    """The digest is being computed; FINISH may be repeated after `wait_ms`."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The file is complete, verified and durable; the device may forget it."""

    upload_id: int
    size: int
    crc32c: int
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Ask how far a name is, without opening it."""

    name: str


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to QUERY."""

    upload_id: int
    state: UploadState
    next_expected_byte: int
    size: int = SIZE_UNKNOWN
    expires_s: int = 0
    crc32c: int | None = None
    ranges: tuple[Span, ...] | None = None
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """The device gives the upload up; its bytes are deleted."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The upload is aborted and its bytes are gone."""

    upload_id: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Every byte below `next_expected_byte` is durable, and so are those of `ranges`."""

    next_expected_byte: int
    ranges: tuple[Span, ...] | None = None


@dataclass(frozen=True, slots=True)
class Nack:
    """These bytes (both ends inclusive) were refused and must be sent again."""

    code: int
    start_byte: int
    end_byte: int
    next_expected_byte: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG with the same token."""

    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to PING."""

    token: int


@dataclass(frozen=True, slots=True)
class Goaway:
    """The server will close soon: finish what is in flight, come back after `reconnect_ms`."""

    code: int
    reconnect_ms: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """The stream, or on stream 0 the connection, is over; `action` says what to do."""

    code: int
    action: Action
    wait_ms: int
    next_expected_byte: int = SIZE_UNKNOWN
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """The header of a chunk in any of its three forms; `end_byte` is inclusive."""

    start_byte: int
    end_byte: int
    checksum: int


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
