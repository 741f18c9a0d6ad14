"""The registry of errors: code, scope, and what the device must do. PROTOCOL.md §16.

The same codes appear on the wire, in the HTTP API and as a label of the metrics.
"""

from enum import Enum, IntEnum

from protocol.constants import Action


class ErrorScope(Enum):
    """What the error ends: an HTTP request, the taking of one chunk, a stream, or the connection."""

    REQUEST = "request"
    CHUNK = "chunk"
    STREAM = "stream"
    CONNECTION = "connection"


_SCOPE_OF_HIGH_BYTE = {
    1: ErrorScope.CONNECTION,
    2: ErrorScope.STREAM,
    3: ErrorScope.CHUNK,
    4: ErrorScope.REQUEST,
}


class ErrorCode(IntEnum):
    """Every error the protocol knows. The high byte tells the scope: 1 connection, 2 stream, 3 chunk, 4 HTTP."""

    scope: ErrorScope
    action: Action
    summary: str

    def __new__(cls, code: int, action: Action, summary: str) -> "ErrorCode":
        member = int.__new__(cls, code)
        member._value_ = code
        member.scope = _SCOPE_OF_HIGH_BYTE[code >> 8]
        member.action = action
        member.summary = summary
        return member

    MAGIC_WRONG = 0x0101, Action.GIVE_UP, "the first frame is not a HELLO of this protocol"
    VERSION_UNSUPPORTED = 0x0102, Action.GIVE_UP, "no protocol version that both ends speak"
    FRAME_TOO_LARGE = 0x0103, Action.REOPEN, "the frame's length is above the limit in force"
    FRAME_MALFORMED = 0x0104, Action.REOPEN, "the frame's body does not fit its layout"
    FRAME_UNKNOWN = 0x0105, Action.REOPEN, "the frame's type is unknown and may not be skipped"
    FRAME_UNEXPECTED = 0x0106, Action.REOPEN, "the frame is not allowed in this state"
    STREAM_REUSED = (
        0x0107,
        Action.REOPEN,
        "the stream number is not above all earlier ones of this connection",
    )
    WINDOW_EXCEEDED = 0x0108, Action.REOPEN, "more is unacknowledged than the window allows"
    UNAUTHENTICATED = 0x0110, Action.REAUTHENTICATE, "the credential is not valid here"
    TOKEN_EXPIRED = 0x0111, Action.REAUTHENTICATE, "the token's time is over"
    FORBIDDEN = 0x0112, Action.GIVE_UP, "the credential is valid, but does not allow uploads"
    DEVICE_DISABLED = 0x0113, Action.GIVE_UP, "the operator has disabled this device"
    CREDENTIAL_UNSUPPORTED = 0x0114, Action.GIVE_UP, "the kind of credential is unknown to this server"
    HANDSHAKE_TIMEOUT = 0x0120, Action.REOPEN, "the handshake took too long"
    IDLE_TIMEOUT = 0x0121, Action.REOPEN, "nothing was received for too long"
    TOO_SLOW = 0x0122, Action.REOPEN, "a frame arrives below the lowest rate allowed"
    NOT_READING = 0x0123, Action.REOPEN, "answers pile up because they are not read"
    TOO_MANY_CONNECTIONS = 0x0124, Action.WAIT, "the server has as many connections as it may"
    SHUTTING_DOWN = 0x0130, Action.WAIT, "the server is about to stop; it, or another, is soon back"
    INTERNAL = 0x01FF, Action.WAIT, "the server failed in a way it did not foresee"

    STREAM_UNKNOWN = 0x0201, Action.REOPEN, "no upload is open under this stream number"
    TOO_MANY_STREAMS = 0x0202, Action.WAIT, "as many uploads are open on this connection as it may have"
    NAME_INVALID = (
        0x0210,
        Action.GIVE_UP,
        "the name is not 1 to 255 bytes of UTF-8 without control characters and `..` parts",
    )
    METADATA_INVALID = (
        0x0211,
        Action.GIVE_UP,
        "the metadata is not text without control characters, or too long",
    )
    SIZE_INVALID = (
        0x0212,
        Action.GIVE_UP,
        "the size is above 2^63-1, or not that of the bytes already received",
    )
    FILE_TOO_LARGE = 0x0213, Action.GIVE_UP, "the size is above the largest file this server takes"
    QUOTA_EXCEEDED = 0x0214, Action.WAIT, "the device has used up the bytes or uploads that it may have"
    DISK_FULL = 0x0215, Action.WAIT, "the server's disk has no room left for uploads"
    STORAGE_FAILED = 0x0216, Action.WAIT, "the server could not make bytes durable"
    CONTENT_CHANGED = 0x0220, Action.OPEN_ANEW, "the name is known with another size or tag"
    NOT_FOUND = 0x0221, Action.OPEN_ANEW, "there is no upload to resume under this name"
    GONE = 0x0222, Action.GIVE_UP, "the upload was deleted by the operator"
    EXPIRED = 0x0223, Action.OPEN_ANEW, "the upload was given up because nothing arrived for too long"
    FENCED = 0x0224, Action.LEAVE, "a later OPEN of the same name has taken the upload over"
    DIGEST_MISMATCH = (
        0x0225,
        Action.OPEN_ANEW,
        "the bytes do not have the digest that was given; they are rejected",
    )
    CHUNK_INVALID = 0x0230, Action.REOPEN, "the chunk's start, end and length contradict each other"
    CHUNK_BEYOND_END = 0x0231, Action.REOPEN, "the chunk reaches beyond the declared size"
    NACKS_EXHAUSTED = 0x0232, Action.REOPEN, "the same range was refused too often"

    CHUNK_CORRUPT = 0x0301, Action.SEND_AGAIN, "the chunk's checksum does not fit"
    TOO_MANY_GAPS = 0x0302, Action.SEND_AGAIN, "the chunk would leave more gaps than are kept: send from N"
    INCOMPLETE = 0x0303, Action.SEND_AGAIN, "FINISH came before all bytes did: send this range, then FINISH"
    CHUNK_DROPPED = 0x0304, Action.SEND_AGAIN, "the chunk came slowly and others needed its memory: send smaller ones"

    REQUEST_INVALID = 0x0401, Action.GIVE_UP, "the request is not what the API describes"
    RESOURCE_UNKNOWN = 0x0402, Action.GIVE_UP, "there is no such file, or it is not the caller's to see"
    METHOD_NOT_ALLOWED = 0x0403, Action.GIVE_UP, "the resource has no such method"
    CONFLICT = 0x0404, Action.WAIT, "the state of the resource does not allow it now"
    NOT_COMPLETE = 0x0405, Action.WAIT, "the file is still arriving and cannot be read yet"
    PRECONDITION_FAILED = 0x0406, Action.GIVE_UP, "the file is not the version the request is for"
    RANGE_NOT_SATISFIABLE = 0x0407, Action.GIVE_UP, "no byte of the file is in the ranges asked for"
    REQUEST_TOO_LARGE = 0x0408, Action.GIVE_UP, "the request has more bytes than are allowed"
    RATE_LIMITED = 0x0409, Action.WAIT, "as many downloads run as may"
    UNAVAILABLE = 0x040A, Action.WAIT, "a part of the server that the request needs does not answer"
