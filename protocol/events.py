"""What the two ends of a connection report to their callers."""

from dataclasses import dataclass

from protocol import frames
from protocol.checksum import Buffer
from protocol.constants import ChecksumKind
from protocol.errors import ErrorCode
from protocol.frame_buffer import Lease
from protocol.ranges import Span


@dataclass(frozen=True, slots=True)
class HelloReceived:
    """The device asks to be let in; `raw` is the frame as sent, which a proof covers. Input waits for the answer."""

    hello: frames.Hello
    raw: bytes


@dataclass(frozen=True, slots=True)
class ProofReceived:
    """The device answered the challenge. Input waits for the answer."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class TokenOffered:
    """A REFRESH: a new token for the running connection."""

    token: str


@dataclass(frozen=True, slots=True)
class OpenRequested:
    """An OPEN that is well-formed; chunks on its stream wait for the answer."""

    stream: int
    open: frames.Open


@dataclass(frozen=True, slots=True)
class ChunksReceived:
    """One or more chunks whose data is one run of bytes from `start` up to but not including `end`.

    The checksums are verified. `data` are the pieces in order; they are valid until `lease` (where there is one)
    is released, which is up to the receiver of the event. `crc32c` is that of all of them, where it is known.
    """

    stream: int
    start: int
    end: int
    data: tuple[Buffer, ...]
    count: int
    checksum: ChecksumKind
    lease: Lease | None
    crc32c: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkRefused:
    """A corrupt chunk was answered by NACK; for the records only."""

    stream: int
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class FinishRequested:
    """FINISH: all bytes were sent."""

    stream: int
    finish: frames.Finish


@dataclass(frozen=True, slots=True)
class QueryReceived:
    """QUERY: how far is this name?"""

    stream: int
    name: str


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """ABORT: the device gives the upload up."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The stream broke the protocol and was told so by ERROR; it is over."""

    stream: int
    code: ErrorCode
    detail: str


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The connection is over: send the outgoing data, which ends with the last words, then close. PROTOCOL.md §15."""

    code: ErrorCode
    detail: str


ServerEvent = (
    HelloReceived
    | ProofReceived
    | TokenOffered
    | OpenRequested
    | ChunksReceived
    | ChunkRefused
    | FinishRequested
    | QueryReceived
    | AbortRequested
    | StreamFailed
    | ConnectionFailed
)


@dataclass(frozen=True, slots=True)
class Challenged:
    """The server wants a proof of the device's secret; `raw` is the frame as received, which the proof covers."""

    nonce: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The handshake is done."""

    welcome: frames.Welcome


@dataclass(frozen=True, slots=True)
class Answered:
    """A frame of the server about one stream, or about the connection's token, that needs no more explanation."""

    stream: int
    frame: (
        frames.Opened
        | frames.Verifying
        | frames.Finished
        | frames.Status
        | frames.Aborted
        | frames.Nack
        | frames.Refreshed
        | frames.Goaway
    )


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Bytes became durable: all below `next_expected_byte`, and `ranges` beyond it."""

    stream: int
    next_expected_byte: int
    ranges: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """An ERROR on a stream, or on stream 0 the end of the connection; or REFUSED."""

    stream: int
    error: frames.Error | frames.Refused


@dataclass(frozen=True, slots=True)
class ServerMisbehaved:
    """The server broke the protocol; close and reconnect."""

    code: ErrorCode
    detail: str


ClientEvent = Challenged | Welcomed | Answered | Acknowledged | Failed | ServerMisbehaved
