"""Numbers of the wire, each with the reason for its value. PROTOCOL.md §3 and §5."""

from enum import IntEnum, IntFlag

MAGIC = b"UPLK"
"""First bytes of every HELLO body, so that a stray HTTP or TLS client is noticed at once."""

VERSION = 1
"""The only protocol version so far."""

ALPN = "uplinkd/1"
"""RFC 7301 protocol name when the connection runs inside TLS."""

OFFSET_MAX = 2**63 - 1
"""Largest byte offset and size, upload id and time in ms: what a signed 64-bit integer, so every catalog, can hold."""

SIZE_UNKNOWN = 2**64 - 1
"""Stands for a size that FINISH declares later. It is above OFFSET_MAX, so never a valid size."""

AUTHORITY_UNLIMITED_S = 2**32 - 1
"""Stands for the seconds of authority left of a credential that does not expire."""

NEVER_S = 2**32 - 1
"""Stands for the seconds to expiry of an upload that does not expire."""

STREAM_CONNECTION = 0
"""The stream number of frames about the connection. Uploads use 1 to 65535."""

STREAM_MAX = 65535
"""The largest stream number: a u16."""

FRAME_BYTES_MIN = 64
"""Smallest `frame_bytes_max` of a device: every answer without optional fields fits into it."""

HANDSHAKE_FRAME_BYTES_MAX = 8192
"""Largest frame before WELCOME: a JWT of a few KiB fits, and a stranger gets no more memory than that."""

CONTROL_FRAME_BYTES_MAX = 8192
"""Largest frame that is not a chunk: name, tag, digests and metadata of an OPEN, or a REFRESH with a large token."""

NAME_BYTES_MAX = 255
"""The longest name on the common file systems of devices."""

TAG_BYTES_MAX = 32
"""A SHA-256, the largest digest in common use as a content tag."""

METADATA_BYTES_MAX = 1024
"""All metadata of an upload together: enough for labels, too little for data."""

AGENT_BYTES_MAX = 64
"""Short, since the agent stands in every log line of the connection."""

TEXT_BYTES_MAX = 512
"""Long enough to explain an error to people. A device may drop it unread."""

NONCE_BYTES = 32
"""As large as the secret, so no nonce ever comes twice."""

PROOF_BYTES = 32
"""An HMAC-SHA-256."""

CHUNK_OVERHEAD_BYTES = 256
"""What each chunk costs in the window besides its data. The server keeps at least one object of this size for a chunk
under way, so a window bounds its memory however small the chunks are."""

NACKS_PER_RANGE_MAX = 8
"""The eighth refusal of one range ends the stream: eight bad copies of one chunk are no accident of the link."""

RANGES_PER_FRAME_MAX = 255
"""The device's `ack_ranges_max` is a u8."""

LAST_WORDS_DISCARD_BYTES = 1024 * 1024
"""Input that is read and discarded after the last words. Closing with unread input would reset the connection."""

LAST_WORDS_DISCARD_S = 5.0
"""How long a device has to read the last words."""

SKIPPABLE = 0x80
"""An unknown frame or TLV type with this bit is skipped; any other unknown type is refused."""

PRIVATE_FIRST = 0xF0
"""Frame and TLV types from here to 0xFF are never assigned: they are for private use."""


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
    """Bits of HELLO and WELCOME. What both ends name is in force."""

    CHUNK_COMPACT = 1
    CHUNK_CRC32C = 2
    SHA256 = 4


class Durability(IntEnum):
    """What acknowledged bytes survive: `SYNC` a power cut, `WRITE` only a crash of the daemon."""

    WRITE = 0
    SYNC = 1


class Disposition(IntEnum):
    """What OPEN does with a known or an unknown name."""

    RESUME_OR_CREATE = 0
    RESUME_ONLY = 1
    REPLACE = 2


class UploadState(IntEnum):
    """State of an upload, or how the earlier upload of a name ended. `NONE`: there is, or was, none."""

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
    """The check that a chunk carries; also a label of the metrics."""

    SUM8 = 1
    CRC32C = 2
