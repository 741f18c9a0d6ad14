"""The device's end of a connection, sans-I/O. PROTOCOL.md §3 to §15 and §20.

The caller sends `data_to_send`, passes what it receives to `receive`, and obeys the events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from protocol import codec, frames
from protocol.checksum import Buffer
from protocol.constants import (
    CHUNK_OVERHEAD_BYTES,
    CONTROL_FRAME_BYTES_MAX,
    STREAM_MAX,
    Feature,
    FrameType,
    UploadState,
)
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
    """The chunks of one stream that were sent and not answered."""

    spans: list[Span] = field(default_factory=list)

    def answer(self, answered: Span) -> list[Span]:
        """Take out and return the chunks that lie within `answered` as a whole."""
        return self._take(lambda span: answered.start <= span.start and span.end <= answered.end)

    def lose(self, missing: Span) -> list[Span]:
        """Take out and return the chunks of which a byte is missing."""
        return self._take(lambda span: span.start < missing.end and missing.start < span.end)

    def _take(self, is_meant: Callable[[Span], bool]) -> list[Span]:
        taken = [span for span in self.spans if is_meant(span)]
        if taken:
            self.spans = [span for span in self.spans if not is_meant(span)]
        return taken


class ClientConnection:
    """One connection of a device. It numbers the streams.

    `unanswered_bytes` are the data bytes of all chunks that were sent and neither acknowledged nor refused.
    """

    __slots__ = (
        "_features_required",
        "_hello_raw",
        "_in_flight",
        "_out",
        "_reader",
        "_stream",
        "_unanswered_chunks",
        "state",
        "unanswered_bytes",
        "welcome",
    )

    def __init__(self, hello: frames.Hello, features_required: int = 0) -> None:
        self._features_required = Feature(features_required)
        self._hello_raw = codec.encode(hello)
        self._out: list[Buffer] = [self._hello_raw]
        self._reader = FrameReader(_OwnMemory())
        self._in_flight: dict[int, _InFlight] = {}
        self._stream = 0
        self._unanswered_chunks = 0
        self.unanswered_bytes = 0
        self.state = ConnectionState.START
        self.welcome: frames.Welcome | None = None

    @property
    def hello_raw(self) -> bytes:
        """The HELLO frame as sent, which the proof covers."""
        return self._hello_raw

    @property
    def window_left_bytes(self) -> int:
        """Data bytes that the next chunk may have; 0 before WELCOME."""
        if self.welcome is None:
            return 0
        charged_bytes = self.unanswered_bytes + (self._unanswered_chunks + 1) * CHUNK_OVERHEAD_BYTES
        return max(self.welcome.window_bytes - charged_bytes, 0)

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
        self._unanswered_chunks += 1
        self.unanswered_bytes += len(data)

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
            case frames.Ack():
                return self._take_ack(head.stream, frame)
            case frames.Ping(token):
                self._send(frames.Pong(token))
                return None
            case frames.Pong():
                return None
        return self._take_answer(head.stream, frame)

    def _take_ack(self, stream: int, ack: frames.Ack) -> ClientEvent:
        ranges = ack.ranges or ()
        if (sent := self._in_flight.get(stream)) is not None:
            for span in (Span(0, ack.next_expected_byte), *ranges):
                self._answered(sent.answer(span))
        return Acknowledged(stream, ack.next_expected_byte, ranges)

    def _take_answer(self, stream: int, frame: frames.ControlFrame) -> ClientEvent:
        match frame:
            case frames.Nack(code, start, end) if stream in self._in_flight:
                sent, refused = self._in_flight[stream], Span(start, end + 1)
                # INCOMPLETE may name a part of a chunk, which was lost as a whole.
                self._answered(sent.lose(refused) if code == ErrorCode.INCOMPLETE else sent.answer(refused))
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

    def _end(self, stream: int) -> None:
        sent = self._in_flight.pop(stream, None)
        if sent is not None:
            self._answered(sent.spans)

    def _answered(self, chunks: Sequence[Span]) -> None:
        self._unanswered_chunks -= len(chunks)
        self.unanswered_bytes -= sum(chunk.end - chunk.start for chunk in chunks)
