"""Transition tables of both ends. A frame that is absent from the row of the state is an error. PROTOCOL.md §3."""

from enum import Enum, auto

from protocol.constants import FrameType


class ConnectionState(Enum):
    """State of a connection, as each end sees it."""

    START = auto()
    """Server: waits for HELLO. Client: has sent HELLO."""
    DECIDING = auto()
    """Server: the caller checks the credential. Client: the caller computes the proof."""
    CHALLENGED = auto()
    """Server: waits for PROOF. Client: has sent PROOF."""
    OPEN = auto()
    """The handshake is done."""
    EXPIRED = auto()
    """Server: the credential has expired, and only REFRESH helps."""
    CLOSING = auto()
    """The last words are said. Input is discarded."""


_DATA = frozenset({FrameType.CHUNK, FrameType.CHUNK_COMPACT, FrameType.CHUNK_CRC32C})
_ALIVE = frozenset({FrameType.PING, FrameType.PONG})
_REQUESTS = frozenset({FrameType.OPEN, FrameType.FINISH, FrameType.QUERY, FrameType.ABORT})

SERVER_ACCEPTS: dict[ConnectionState, frozenset[FrameType]] = {
    ConnectionState.START: frozenset({FrameType.HELLO}),
    ConnectionState.CHALLENGED: frozenset({FrameType.PROOF}),
    ConnectionState.OPEN: _DATA | _ALIVE | _REQUESTS | {FrameType.REFRESH},
    ConnectionState.EXPIRED: _DATA | _ALIVE | {FrameType.REFRESH},
}
"""What a device may send. In DECIDING input waits; in CLOSING it is discarded."""

SERVER_HOLDS: dict[ConnectionState, frozenset[FrameType]] = {ConnectionState.EXPIRED: _REQUESTS}
"""Frames that wait, with all input behind them, until the state changes."""

CLIENT_ACCEPTS: dict[ConnectionState, frozenset[FrameType]] = {
    ConnectionState.START: frozenset({FrameType.WELCOME, FrameType.CHALLENGE, FrameType.REFUSED}),
    ConnectionState.DECIDING: frozenset({FrameType.REFUSED}),
    ConnectionState.CHALLENGED: frozenset({FrameType.WELCOME, FrameType.REFUSED}),
    ConnectionState.OPEN: _ALIVE
    | {
        FrameType.OPENED,
        FrameType.ACK,
        FrameType.NACK,
        FrameType.VERIFYING,
        FrameType.FINISHED,
        FrameType.STATUS,
        FrameType.ABORTED,
        FrameType.REFRESHED,
        FrameType.GOAWAY,
        FrameType.ERROR,
    },
}
"""What a server may send."""


class StreamState(Enum):
    """State of a stream at the server. A stream that has ended has none, only a number that is used up."""

    OPENING = auto()
    RECEIVING = auto()
    FINISHING = auto()


STREAM_ACCEPTS: dict[StreamState, frozenset[FrameType]] = {
    StreamState.OPENING: frozenset(),
    StreamState.RECEIVING: _DATA | {FrameType.FINISH, FrameType.ABORT},
    StreamState.FINISHING: _DATA | {FrameType.FINISH, FrameType.ABORT},
}
"""What a stream takes. While it is OPENING, input waits for the answer."""
