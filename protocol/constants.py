"""Numbers of the wire, each with the reason for its value. PROTOCOL.md §3 and §5."""

from enum import IntEnum, IntFlag

MAGIC = b"UPLK"
"""First bytes of every HELLO body, so that a stray HTTP or TLS client is told apart at once."""

VERSION = 1
"""The only protocol version so far."""

ALPN = "uplinkd/1"
"""RFC 7301 protocol name when the connection runs inside TLS."""

INT64_MAX = 2**63 - 1
"""Largest signed 64-bit integer: what every catalog and file system can hold. Upload ids and times end there, too."""

OFFSET_MAX = INT64_MAX
"""Largest byte offset and size."""

SIZE_UNKNOWN = 2**64 - 1
"""In place of a size that is declared only at FINISH; never a valid size, as it is above OFFSET_MAX."""

AUTHORITY_UNLIMITED_S = 2**32 - 1
"""In place of the seconds of authority left, for a credential that does not expire."""

NEVER_S = 2**32 - 1
"""In place of the seconds to expiry, for an upload that does not expire."""

STREAM_CONNECTION = 0
"""The stream number of frames that concern the connection; uploads use 1 to 65535."""

STREAM_MAX = 65535
"""The largest stream number: a u16."""

FRAME_BYTES_MIN = 64
"""Smallest 'largest frame' a device may ask for: every answer without optional fields fits in it."""

HANDSHAKE_FRAME_BYTES_MAX = 8192
"""Largest frame before WELCOME: a JWT of a few KiB fits, and a stranger gets no more memory than that."""

CONTROL_FRAME_BYTES_MAX = 8192
"""Largest frame that is not a chunk: name, tag, digests and metadata of an OPEN, or a REFRESH with a large token."""

NAME_BYTES_MAX = 255
"""What the common file systems of devices allow for a name."""

TAG_BYTES_MAX = 32
"""A SHA-256, the largest digest in common use as a content tag."""

METADATA_BYTES_MAX = 1024
"""All metadata of an upload together: enough for a label, not a place to keep data."""

AGENT_BYTES_MAX = 64
"""What a device says of itself in HELLO goes into every log line of the connection."""

TEXT_BYTES_MAX = 512
"""Explanations for people; a device may drop them unread."""

NONCE_BYTES = 32
"""As large as the secret it protects: a repeat is out of the question."""

PROOF_BYTES = 32
"""An HMAC-SHA-256."""

NACKS_PER_RANGE_MAX = 8
"""The eighth refusal of one range ends the stream: eight corrupt copies of one chunk are no accident of the link."""

RANGES_PER_FRAME_MAX = 255
"""The device's `ack_ranges_max` is a u8."""

LAST_WORDS_DISCARD_BYTES = 1024 * 1024
"""Input read and thrown away after an ERROR, so that closing does not reset the connection before it is read."""

LAST_WORDS_DISCARD_S = 5.0
"""How long a device has to read the last words."""

SKIPPABLE = 0x80
"""A frame or TLV type with this bit may be skipped when it is not known; any other unknown type is refused."""

PRIVATE_FIRST = 0xF0
"""Frame and TLV types from here to 0xFF are never assigned: they are for private use between consenting ends."""


class FrameType(IntEnum):
    """First byte of every frame. PROTOCOL.md §5."""

    HELLO = 0x01
    WELCOME = 0x02
    CHALLENGE = 0x03
    PROOF = 0x04
    REFUSED = 0x05
    REFRESH = 0x06
    REFRESHED = 0x07
    OPEN = 0x10
    OPENED = 0x11
    FINISH = 0x12
    VERIFYING = 0x13
    FINISHED = 0x14
    QUERY = 0x15
    STATUS = 0x16
    ABORT = 0x17
    ABORTED = 0x18
    CHUNK = 0x20
    CHUNK_COMPACT = 0x21
    CHUNK_CRC32C = 0x22
    ACK = 0x28
    NACK = 0x29
    PING = 0x30
    PONG = 0x31
    GOAWAY = 0x32
    ERROR = 0x33


class TlvType(IntEnum):
    """First byte of an optional field behind the fixed part of a control body. PROTOCOL.md §5."""

    TOKEN = 0x01
    TENANT = 0x02
    DEVICE = 0x03
    NONCE = 0x04
    NAME = 0x10
    TAG = 0x11
    SHA256 = 0x12
    CRC32C = 0x13
    CONTENT_TYPE = 0x14
    EXTERNAL_ID = 0x15
    ORIGINAL_NAME = 0x16
    RANGES = 0x17
    AGENT = 0x81
    AGENT_VERSION = 0x82
    LAST_END = 0x83
    TEXT = 0x84


class CredentialKind(IntEnum):
    """How a device proves who it is. Others are reserved."""

    TOKEN = 1
    DEVICE_SECRET = 2


class Feature(IntFlag):
    """Bits of HELLO and WELCOME; what both ends name is in force."""

    CHUNK_COMPACT = 1
    CHUNK_CRC32C = 2
    SHA256 = 4


class Durability(IntEnum):
    """What an ACK means on this server: `SYNC` survives a power cut, `WRITE` only a crash of the daemon."""

    WRITE = 0
    SYNC = 1


class Disposition(IntEnum):
    """What OPEN does with a name that is known, or is not."""

    RESUME_OR_CREATE = 0
    RESUME_ONLY = 1
    REPLACE = 2


class UploadState(IntEnum):
    """State of an upload, or how an earlier id under the same name ended. `NONE`: there is, or was, none."""

    NONE = 0
    RECEIVING = 1
    COMPLETE = 2
    REJECTED = 3
    ABORTED = 4
    DELETED = 5
    EXPIRED = 6


class Action(IntEnum):
    """What the device must do about an error. The set is closed for version 1. PROTOCOL.md §16."""

    SEND_AGAIN = 1
    REOPEN = 2
    WAIT = 3
    REAUTHENTICATE = 4
    OPEN_ANEW = 5
    LEAVE = 6
    GIVE_UP = 7


class ChecksumKind(IntEnum):
    """Which check a chunk carries; also a label of the metrics."""

    SUM8 = 1
    CRC32C = 2
