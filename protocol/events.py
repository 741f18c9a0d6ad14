"""What the two ends of a connection report to their callers."""

from dataclasses import dataclass

from protocol import frames
from protocol.checksum import Buffer
from protocol.constants import CHUNK_OVERHEAD_BYTES, ChecksumKind
from protocol.errors import ErrorCode
from protocol.frame_buffer import Lease
from protocol.ranges import Span


@dataclass(frozen=True, slots=True)
class HelloReceived:
    """HELLO. `raw` is the frame as sent, which a proof covers. Input waits for the answer."""

    hello: frames.Hello
    raw: bytes


@dataclass(frozen=True, slots=True)
class ProofReceived:
    """PROOF: the answer to the challenge. Input waits for the verdict."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class TokenOffered:
    """REFRESH: a new token for this connection."""

    token: str


@dataclass(frozen=True, slots=True)
class OpenRequested:
    """A well-formed OPEN. Chunks on its stream wait for the answer."""

    stream: int
    open: frames.Open


@dataclass(frozen=True, slots=True)
class ChunksReceived:
    """One or more chunks whose data is one run of bytes from `start` up to but not including `end`.

    The checksums are verified. `data` holds the pieces in order. If there is a `lease`, they are valid until the
    receiver of the event releases it. `crc32c` is that of the whole run, where it is known.
    """

    stream: int
    start: int
    end: int
    data: tuple[Buffer, ...]
    count: int
    checksum: ChecksumKind
    lease: Lease | None
    crc32c: int | None = None

    @property
    def charged_bytes(self) -> int:
        """What the chunks take of the window until they are answered. §11"""
        return self.end - self.start + self.count * CHUNK_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class ChunkRefused:
    """A chunk was refused, corrupt or dropped; for the records only."""

    stream: int
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class FinishRequested:
    """FINISH: all bytes were sent."""

    stream: int
    finish: frames.Finish


@dataclass(frozen=True, slots=True)
class QueryReceived:
    """QUERY: how far is the upload of this name?"""

    stream: int
    name: str


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """ABORT: the device gives the upload up."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The device broke the protocol on this stream. ERROR was sent and the stream is over."""

    stream: int
    code: ErrorCode
    detail: str


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The connection is over: send what is queued, which ends with the last words, then close. PROTOCOL.md §15."""

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
    """The server asks for a proof of the device's secret. `raw` is the frame as received, which the proof covers."""

    nonce: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The handshake is done."""

    welcome: frames.Welcome


@dataclass(frozen=True, slots=True)
class Answered:
    """A frame of the server about one stream, or about the connection's token, passed on as it is."""

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
