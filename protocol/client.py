"""The device's end of a connection, sans-I/O. PROTOCOL.md §3 to §15 and §20.

The caller sends `data_to_send`, passes what it receives to `receive`, and obeys the events.
"""

from dataclasses import dataclass, field

from protocol import codec, frames
from protocol.checksum import Buffer
from protocol.constants import CONTROL_FRAME_BYTES_MAX, STREAM_MAX, Feature, FrameType, UploadState
from protocol.errors import ErrorCode
from protocol.events import (
    Acknowledged,
    Answered,
    Challenged,
    ClientEvent,
    Failed,
    ServerMisbehaved,
    Welcomed,
)
from protocol.exceptions import LocalProtocolError, ProtocolError
from protocol.frame_buffer import Borrower, Lease
from protocol.ranges import Span
from protocol.reader import FrameReader, Head
from protocol.state import CLIENT_ACCEPTS, ConnectionState


class _OwnMemory:
    """The receive memory of one client. No frame of a server is large enough to need a lease."""

    __slots__ = ("shared",)

    def __init__(self) -> None:
        self.shared = memoryview(bytearray(2 * CONTROL_FRAME_BYTES_MAX))

    def lease(self, size_bytes: int, borrower: Borrower | None = None) -> Lease | None:  # noqa: ARG002 - the interface
        return None

    try_lease = lease


@dataclass(slots=True)
class _InFlight:
    """The bytes of one stream that were sent and not answered."""

    spans: list[Span] = field(default_factory=list)

    def remove(self, answered: Span) -> int:
        """Take out what lies within `answered`. Returns the number of bytes."""
        kept: list[Span] = []
        removed = 0
        for span in self.spans:
            low, high = max(span.start, answered.start), min(span.end, answered.end)
            if low >= high:
                kept.append(span)
                continue
            removed += high - low
            kept.extend(part for part in (Span(span.start, low), Span(high, span.end)) if part.start < part.end)
        self.spans = kept
        return removed


class ClientConnection:
    """One connection of a device. It numbers the streams."""

    __slots__ = (
        "_features_required",
        "_hello_raw",
        "_in_flight",
        "_out",
        "_reader",
        "_stream",
        "_unacknowledged_bytes",
        "state",
        "welcome",
    )

    def __init__(self, hello: frames.Hello, features_required: int = 0) -> None:
        self._features_required = Feature(features_required)
        self._hello_raw = codec.encode(hello)
        self._out: list[Buffer] = [self._hello_raw]
        self._reader = FrameReader(_OwnMemory())
        self._in_flight: dict[int, _InFlight] = {}
        self._stream = 0
        self._unacknowledged_bytes = 0
        self.state = ConnectionState.START
        self.welcome: frames.Welcome | None = None

    @property
    def hello_raw(self) -> bytes:
        """The HELLO frame as sent, which the proof covers."""
        return self._hello_raw

    @property
    def window_left_bytes(self) -> int:
        """Data bytes that may be sent now; 0 before WELCOME."""
        return 0 if self.welcome is None else max(self.welcome.window_bytes - self._unacknowledged_bytes, 0)

    def data_to_send(self) -> list[Buffer]:
        """Everything to be sent since the last call. The data of chunks is the caller's own memory."""
        out, self._out = self._out, []
        return out

    def receive(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the server. Returns the events in order; ServerMisbehaved is the last of all."""
        events: list[ClientEvent] = []
        rest = memoryview(data)
        while rest and self.state is not ConnectionState.CLOSING:
            writable = self._reader.buffer.writable(len(rest))
            writable[:] = rest[: len(writable)]
            self._reader.buffer.received(len(writable))
            rest = rest[len(writable) :]
            try:
                self._take_all(events)
            except ProtocolError as error:
                self.state = ConnectionState.CLOSING
                self._reader.discard()
                events.append(ServerMisbehaved(error.code, error.detail))
            self._reader.save_rest()
        return events

    def prove(self, proof: bytes) -> None:
        """Answer the challenge."""
        if self.state is not ConnectionState.DECIDING:
            raise LocalProtocolError("there is no challenge to answer")
        self.state = ConnectionState.CHALLENGED
        self._send(frames.Proof(proof))

    def open(self, request: frames.Open) -> int:
        """Open an upload. Returns the number of its stream. With a token this may come before WELCOME."""
        if self._stream == STREAM_MAX:
            raise LocalProtocolError(f"all {STREAM_MAX} streams of the connection are used: reconnect")
        self._stream += 1
        self._in_flight[self._stream] = _InFlight()
        self._send(request, self._stream)
        return self._stream

    def chunk(self, stream: int, start: int, data: Buffer, kind: FrameType = FrameType.CHUNK) -> None:
        """Send a chunk. Raises LocalProtocolError if the stream has ended or the data exceeds the server's limit."""
        if stream not in self._in_flight:
            raise LocalProtocolError(f"stream {stream} is not open")
        if self.welcome is not None and len(data) > self.welcome.chunk_bytes_max:
            raise LocalProtocolError(f"a chunk of {len(data)} bytes, {self.welcome.chunk_bytes_max} are allowed")
        self._out += (codec.encode_chunk_header(kind, stream, start, data), data)
        self._in_flight[stream].spans.append(Span(start, start + len(data)))
        self._unacknowledged_bytes += len(data)

    def finish(self, stream: int, finish: frames.Finish) -> None:
        """Say that all bytes of the stream were sent. May be repeated."""
        self._send(finish, stream)

    def abort(self, stream: int) -> None:
        """Give the upload up."""
        self._send(frames.Abort(), stream)

    def query(self, name: str, number: int = 0) -> None:
        """Ask how far the upload of a name is. The answer carries `number`, which opens no stream."""
        self._send(frames.Query(name), number)

    def refresh(self, token: str) -> None:
        """Offer a new token."""
        self._send(frames.Refresh(token))

    def ping(self, token: int) -> None:
        """Ask for a sign of life."""
        self._send(frames.Ping(token))

    def _send(self, frame: frames.ControlFrame, stream: int = 0) -> None:
        self._out.append(codec.encode(frame, stream))

    def _take_all(self, events: list[ClientEvent]) -> None:
        while self.state is not ConnectionState.CLOSING and (head := self._reader.next()) is not None:
            kind = head.type
            if kind is not None and kind not in CLIENT_ACCEPTS.get(self.state, ()):
                raise ProtocolError(ErrorCode.FRAME_UNEXPECTED, f"{kind.name} in state {self.state.name}")
            event = None if kind is None else self._take(kind, head)
            self._reader.consume(head.frame_bytes)
            if event is not None:
                events.append(event)

    def _take(self, kind: FrameType, head: Head) -> ClientEvent | None:
        frame = codec.decode(kind, self._reader.body(head))
        match frame:
            case frames.Challenge(nonce):
                self.state = ConnectionState.DECIDING
                return Challenged(nonce, self._reader.raw(head))
            case frames.Welcome():
                return self._take_welcome(frame)
            case frames.Refused():
                self.state = ConnectionState.CLOSING
                return Failed(0, frame)
            case frames.Error():
                if head.stream == 0:
                    self.state = ConnectionState.CLOSING
                self._end(head.stream)
                return Failed(head.stream, frame)
            case frames.Ack(next_expected_byte, ranges):
                for span in (Span(0, next_expected_byte), *(ranges or ())):
                    self._remove(head.stream, span)
                return Acknowledged(head.stream, next_expected_byte, ranges or ())
            case frames.Ping(token):
                self._send(frames.Pong(token))
                return None
            case frames.Pong():
                return None
        return self._take_answer(head.stream, frame)

    def _take_answer(self, stream: int, frame: frames.ControlFrame) -> ClientEvent:
        match frame:
            case frames.Nack(start_byte=start, end_byte=end):
                self._remove(stream, Span(start, end + 1))
            case frames.Opened(state=UploadState.COMPLETE) | frames.Finished() | frames.Aborted():
                self._end(stream)
        if not isinstance(
            frame,
            frames.Opened
            | frames.Verifying
            | frames.Finished
            | frames.Status
            | frames.Aborted
            | frames.Nack
            | frames.Refreshed
            | frames.Goaway,
        ):
            raise LocalProtocolError(f"{type(frame).__name__} is in the table, but nothing takes it")
        return Answered(stream, frame)

    def _take_welcome(self, welcome: frames.Welcome) -> ClientEvent:
        lacking = self._features_required & ~Feature(welcome.features)
        if lacking:
            raise ProtocolError(ErrorCode.VERSION_UNSUPPORTED, f"the server does not offer {lacking!r}")
        self.state = ConnectionState.OPEN
        self.welcome = welcome
        return Welcomed(welcome)

    def _remove(self, stream: int, span: Span) -> None:
        if stream in self._in_flight:
            self._unacknowledged_bytes -= self._in_flight[stream].remove(span)

    def _end(self, stream: int) -> None:
        sent = self._in_flight.pop(stream, None)
        if sent is not None:
            self._unacknowledged_bytes -= sum(span.end - span.start for span in sent.spans)
