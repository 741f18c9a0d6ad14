"""The server's end of a connection, sans-I/O. PROTOCOL.md §3 to §15.

The caller receives into `get_buffer`, tells `received`, takes the events and answers them, and sends `data_to_send`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol import codec, frames
from protocol.chunks import CHECKSUM_KINDS, Chunk, ChunkRun, Piece, gather_equal, is_worth_gathering, read_chunk
from protocol.constants import (
    FRAME_BYTES_MIN,
    HANDSHAKE_FRAME_BYTES_MAX,
    OFFSET_MAX,
    SIZE_UNKNOWN,
    STREAM_CONNECTION,
    VERSION,
    Action,
    Feature,
    FrameType,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.events import (
    AbortRequested,
    ChunkRefused,
    ConnectionFailed,
    FinishRequested,
    HelloReceived,
    OpenRequested,
    ProofReceived,
    QueryReceived,
    ServerEvent,
    StreamFailed,
    TokenOffered,
)
from protocol.exceptions import LocalProtocolError, ProtocolError
from protocol.frame_buffer import BufferSource
from protocol.handshake import check_hello
from protocol.naming import check_open
from protocol.outbox import Outbox
from protocol.ranges import Span
from protocol.reader import FrameReader, Head
from protocol.state import SERVER_ACCEPTS, SERVER_HOLDS, STREAM_ACCEPTS, ConnectionState, StreamState
from protocol.streams import Stream, Streams
from protocol.timers import Probe, Timers, TimerSettings

_FEATURE_OF = {FrameType.CHUNK_COMPACT: Feature.CHUNK_COMPACT, FrameType.CHUNK_CRC32C: Feature.CHUNK_CRC32C}
_CHUNK_HEADER_BYTES_MAX = max(layout.size for layout in codec.CHUNK_FRAMES.values())
_REQUESTS = frozenset({FrameType.OPEN, FrameType.QUERY, FrameType.ABORT})
_HANDSHAKE = frozenset({ConnectionState.START, ConnectionState.DECIDING, ConnectionState.CHALLENGED})
_ON_CONNECTION = frozenset(
    {FrameType.HELLO, FrameType.PROOF, FrameType.REFRESH, FrameType.PING, FrameType.PONG}
)  # the frames of a device that belong to no stream

REQUESTS_MAX = 64
"""OPENs, QUERYs and ABORTs that wait for an answer; input behind them waits too, so a flood of them costs no memory."""

TURN_FRAMES = 256
"""Taken one after another, many small chunks that are gathered counting as one: some milliseconds at most, then it is
the other connections' turn."""

WAIT_MS = 5000
"""What a device waits after an error whose end is not known: about what a restart takes."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the server allows every connection."""

    chunk_bytes_max: int
    window_bytes: int
    streams_max: int
    features: Feature
    timers: TimerSettings
    chunk_frame_bytes_max: int = field(init=False)
    """Made once: each connection keeps it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunk_frame_bytes_max", self.chunk_bytes_max + _CHUNK_HEADER_BYTES_MAX)


class ServerConnection:
    """One connection; `now` arguments are monotonic seconds."""

    __slots__ = (
        "_events",
        "_features",
        "_has_more",
        "_held",
        "_limits",
        "_outbox",
        "_reader",
        "_requests",
        "_run",
        "going_away",
        "state",
        "streams",
        "timers",
    )

    def __init__(self, limits: ServerLimits, buffers: BufferSource, now: float) -> None:
        self._limits = limits
        self._reader = FrameReader(buffers)
        self._events: list[ServerEvent] = []
        self._outbox = Outbox()
        self._run: ChunkRun | None = None
        self._has_more = False
        self._held = False
        self._requests = 0
        self._features = Feature(0)
        self.state = ConnectionState.START
        self.streams = Streams(limits.streams_max, limits.window_bytes)
        self.timers = Timers(limits.timers, now)
        self.going_away = False

    # Input.

    def get_buffer(self) -> memoryview:
        """Memory to receive the next bytes into; not while `is_held`, `is_starved` or `has_more`."""
        return self._reader.buffer.writable(HANDSHAKE_FRAME_BYTES_MAX if self.state in _HANDSHAKE else SIZE_UNKNOWN)

    def received(self, count: int, now: float) -> list[ServerEvent]:
        """`count` bytes were put into the buffer; what follows from them, in order."""
        self._reader.buffer.received(count)
        self.timers.received(count, now)
        return self._parse(now)

    def resume(self, now: float) -> list[ServerEvent]:
        """Input that waited for an answer, for memory, or its turn, goes on; what follows from it, in order."""
        self._reader.buffer.reopen()
        self.timers.paused(now)
        return self._parse(now)

    @property
    def is_held(self) -> bool:
        """Input waits for the caller's answer to an event."""
        return self._held

    @property
    def has_more(self) -> bool:
        """Input waits for a later turn, so that one connection with many frames does not keep others waiting."""
        return self._has_more

    @property
    def is_starved(self) -> bool:
        """Input waits until the pool has memory to lend."""
        return self._reader.buffer.starved

    @property
    def has_lease(self) -> bool:
        """Memory that was lent to it is received into."""
        return self._reader.buffer.lease is not None

    def check_time(self, now: float) -> list[ServerEvent]:
        """What the time asks for; call about once a second. May queue a PING, or end the connection."""
        self._reader.buffer.rest()
        if self.state is ConnectionState.CLOSING or self._held or self._reader.buffer.starved:
            self.timers.paused(now)
            return []
        due = self.timers.check(now)
        if due is Probe.PING:
            self.send(0, frames.Ping(int(now) & 0xFFFFFFFF))
        elif due is not None:
            self.fail(*due)
        return self.take_events()

    def close(self) -> None:
        """The transport is gone: give back what is borrowed."""
        self._reader.buffer.close()
        self.state = ConnectionState.CLOSING

    # Output.

    @property
    def has_output(self) -> bool:
        """Whether `data_to_send` gives anything."""
        return not self._outbox.is_empty

    def data_to_send(self) -> bytes:
        """Everything to be sent since the last call."""
        return self._outbox.take()

    # Answers to events.

    def challenge(self, nonce: bytes) -> bytes:
        """Ask for the proof of a device's secret; the frame as sent, which the proof must cover."""
        self._leave(ConnectionState.DECIDING, ConnectionState.CHALLENGED)
        return self._outbox.send(0, frames.Challenge(nonce))

    def welcome(self, welcome: frames.Welcome) -> None:
        """Take the device in."""
        self._leave(ConnectionState.DECIDING, ConnectionState.OPEN)
        self._features = Feature(welcome.features)
        self._reader.chunk_frame_bytes_max = self._limits.chunk_frame_bytes_max
        self.timers.welcomed()
        self.send(0, welcome)

    def expire(self) -> None:
        """The credential's time is over: acknowledge nothing and take no request until `refreshed`. §13."""
        if self.state is ConnectionState.OPEN:
            self.state = ConnectionState.EXPIRED
            self._outbox.withhold()

    def refreshed(self, authority_s: int) -> None:
        """The new token is good; what was withheld goes out."""
        self.send(0, frames.Refreshed(authority_s))
        if self.state is ConnectionState.EXPIRED:
            self.state = ConnectionState.OPEN
            self._held = False
            self._outbox.release()

    def opened(self, number: int, opened: frames.Opened, size: int) -> None:
        """The upload is open at its N, or complete. `size` is SIZE_UNKNOWN where it is not declared."""
        stream = self._stream(number, StreamState.OPENING)
        stream.size = size
        stream.next_expected_byte = opened.next_expected_byte
        stream.state = StreamState.RECEIVING
        self._held = False
        self.send(number, opened)
        if opened.state is UploadState.COMPLETE:
            self.streams.end(number)

    def acknowledge(self, number: int, next_expected_byte: int, beyond: Sequence[Span], settled_bytes: int) -> None:
        """All below `next_expected_byte`, and `beyond`, are durable; `settled_bytes` of what arrived are dealt with."""
        stream = self.streams.get(number)
        if stream is None:
            return
        self.streams.settle(stream, settled_bytes)
        stream.next_expected_byte = next_expected_byte
        self._outbox.acknowledge(number, next_expected_byte, beyond)

    def refuse_range(self, number: int, refused: Span, code: ErrorCode, settled_bytes: int) -> None:
        """NACK these bytes; the stream stays open. `settled_bytes` of what arrived are dealt with by it."""
        stream = self.streams.get(number)
        if stream is None:
            return
        self.streams.settle(stream, settled_bytes)
        self.streams.allow_again(refused.end - refused.start)
        if code is ErrorCode.INCOMPLETE:
            stream.state = StreamState.RECEIVING
        self.send(number, frames.Nack(code, refused.start, refused.end - 1, stream.next_expected_byte, code.summary))

    def finished(self, number: int, finished: frames.Finished) -> None:
        """The upload is complete; the stream is over."""
        self._end(number)
        self.send(number, finished)

    def answered(self) -> None:
        """One OPEN, QUERY or ABORT that was given as an event is dealt with; to be called once for each."""
        self._requests -= 1
        if self.state in (ConnectionState.OPEN, ConnectionState.EXPIRED):
            self._held = False

    def aborted(self, number: int, upload_id: int) -> None:
        """The upload is aborted; the stream is over."""
        self._end(number)
        self.send(number, frames.Aborted(upload_id))

    def fail_stream(self, number: int, code: ErrorCode, detail: str, wait_ms: int = 0) -> None:
        """End one stream with an ERROR; the connection lives on."""
        stream = self.streams.get(number)
        next_expected_byte = SIZE_UNKNOWN
        if stream is not None and stream.state is StreamState.OPENING:
            self._held = False
        elif stream is not None:
            next_expected_byte = stream.next_expected_byte
        self._end(number)
        wait_ms = wait_ms or (WAIT_MS if code.action is Action.WAIT else 0)
        self.send(number, frames.Error(code, code.action, wait_ms, next_expected_byte, detail))

    def fail(self, code: ErrorCode, detail: str, wait_ms: int = 0) -> None:
        """End the connection: REFUSED before WELCOME, ERROR after. The caller then closes as §15 says."""
        if self.state is ConnectionState.CLOSING:
            return
        wait_ms = wait_ms or (WAIT_MS if code.action is Action.WAIT else 0)
        if self.state in _HANDSHAKE:
            self.send(0, frames.Refused(code, code.action, VERSION, VERSION, wait_ms, detail))
        else:
            self.send(0, frames.Error(code, code.action, wait_ms, text=detail))
        self._outbox.close()
        self.state = ConnectionState.CLOSING
        self._held = False
        self._events.append(ConnectionFailed(code, detail))

    def go_away(self, reconnect_ms: int, detail: str) -> None:
        """Ask the device to come back later; no OPEN is answered from now on."""
        self.going_away = True
        if self.state in (ConnectionState.OPEN, ConnectionState.EXPIRED):
            self.send(0, frames.Goaway(ErrorCode.SHUTTING_DOWN, reconnect_ms, detail))

    def send(self, number: int, frame: frames.ControlFrame) -> None:
        """Queue a frame that changes no state, such as VERIFYING or STATUS; no larger than the device accepts."""
        self._outbox.send(number, frame)

    # Parsing.

    def _parse(self, now: float) -> list[ServerEvent]:
        reader = self._reader
        try:
            self._has_more = self._take_turn()
        except ProtocolError as error:
            self._has_more = False
            self._flush()
            self.fail(error.code, error.detail)
        self._flush()
        if self.state is ConnectionState.CLOSING:
            reader.discard()
        self.timers.frame(reader.settle() and not self._held, now)
        return self.take_events()

    def _take_turn(self) -> bool:
        """Take frames for one turn; whether there may be more. Raises ProtocolError."""
        reader = self._reader
        for _ in range(TURN_FRAMES):
            if self._held or self.state is ConnectionState.CLOSING or (head := self._next()) is None:
                return False
            kind = head.type
            if kind in CHECKSUM_KINDS and kind is not None:
                reader.consume(self._take_chunks(kind, head))
            elif kind is None or self._take_control(kind, head):
                reader.consume(head.frame_bytes)
        return True

    def _next(self) -> Head | None:
        """The next whole frame, if the state takes it now. Raises ProtocolError."""
        buffer = self._reader.buffer
        if self.state is ConnectionState.START and buffer.end > buffer.begin:
            kind = buffer.view[buffer.begin]
            if kind != FrameType.HELLO:
                raise ProtocolError(ErrorCode.MAGIC_WRONG, f"the first frame has type 0x{kind:02x}, HELLO is expected")
        head = self._reader.next()
        if head is None or head.type is None or head.type in SERVER_ACCEPTS.get(self.state, ()):
            return head
        if head.type not in SERVER_HOLDS.get(self.state, ()):
            raise ProtocolError(ErrorCode.FRAME_UNEXPECTED, f"{head.type.name} in state {self.state.name}")
        self._held = True
        return None

    def _take_control(self, kind: FrameType, head: Head) -> bool:
        """Deal with a control frame; False when it has to wait."""
        self._flush()
        if self._requests >= REQUESTS_MAX and kind in _REQUESTS:
            self._held = True
            return False
        number = head.stream
        frame = codec.decode(kind, self._reader.body(head))
        if (number == STREAM_CONNECTION) is not (kind in _ON_CONNECTION) and kind is not FrameType.QUERY:
            raise ProtocolError(ErrorCode.FRAME_MALFORMED, f"{kind.name} on stream {number}")
        match frame:
            case frames.Hello():
                self._outbox.frame_bytes_max = max(frame.frame_bytes_max, FRAME_BYTES_MIN)
                self._outbox.ack_ranges_max = frame.ack_ranges_max
                check_hello(frame)
                self._hold(ConnectionState.DECIDING)
                self._events.append(HelloReceived(frame, self._reader.raw(head)))
            case frames.Proof(proof):
                self._hold(ConnectionState.DECIDING)
                self._events.append(ProofReceived(proof))
            case frames.Refresh(token):
                self._events.append(TokenOffered(token))
            case frames.Ping(token):
                self.send(0, frames.Pong(token))
            case frames.Query(name):
                self._ask(QueryReceived(number, name))
            case frames.Open():
                self._take_open(number, frame)
            case frames.Finish() | frames.Abort():
                return self._take_end(kind, number, frame)
        return True

    def _ask(self, event: OpenRequested | QueryReceived | AbortRequested) -> None:
        self._requests += 1
        self._events.append(event)

    def _take_open(self, number: int, request: frames.Open) -> None:
        if self.going_away:
            self.streams.use(number)
        elif not self.streams.open(number):
            self._break_stream(number, ErrorCode.TOO_MANY_STREAMS, f"{len(self.streams)} uploads are open")
        elif refusal := check_open(request):
            self._break_stream(number, *refusal)
        else:
            self._ask(OpenRequested(number, request))

    def _take_end(self, kind: FrameType, number: int, frame: frames.Finish | frames.Abort) -> bool:
        stream = self._addressed(number)
        if stream is None:
            return True
        if kind not in STREAM_ACCEPTS[stream.state]:
            self._held = True
            return False
        if isinstance(frame, frames.Abort):
            self._ask(AbortRequested(number))
        elif frame.size > OFFSET_MAX or stream.size not in (SIZE_UNKNOWN, frame.size):
            self._break_stream(number, ErrorCode.SIZE_INVALID, f"FINISH says {frame.size}, OPEN said {stream.size}")
        else:
            stream.size = frame.size
            stream.state = StreamState.FINISHING
            self._events.append(FinishRequested(number, frame))
        return True

    def _take_chunks(self, kind: FrameType, head: Head) -> int:
        """Deal with a chunk and those like it behind it; how many bytes are done with, 0 when they have to wait."""
        number, frame_bytes = head.stream, head.frame_bytes
        if kind in _FEATURE_OF and _FEATURE_OF[kind] not in self._features:
            raise ProtocolError(ErrorCode.FRAME_UNEXPECTED, f"{kind.name} was not negotiated")
        if number == STREAM_CONNECTION:
            raise ProtocolError(ErrorCode.FRAME_MALFORMED, f"{kind.name} on stream 0")
        stream = self._addressed(number)
        if stream is None:
            return frame_bytes
        if kind not in STREAM_ACCEPTS[stream.state]:
            self._held = True
            return 0
        buffer = self._reader.buffer
        chunk = read_chunk(buffer.view, buffer.begin, kind)
        if isinstance(chunk, str) or chunk.end > stream.size or not chunk.intact:
            self._refuse_chunk(number, stream, chunk)
            return frame_bytes
        start, end = chunk.start, chunk.end
        count = 1
        data: Piece = chunk.data
        like_it = (min(stream.size, OFFSET_MAX) - start) // (end - start)
        left = min(buffer.end - buffer.begin, like_it * frame_bytes)
        if is_worth_gathering(kind, end - start, left):
            count, data = gather_equal(buffer.view, buffer.begin, buffer.begin + left, kind, chunk)
            end = start + count * (end - start)
        self.streams.receive(stream, end - start)
        stream.forgive(start, end)
        checksum = CHECKSUM_KINDS[kind]
        if self._run is None or not self._run.takes(number, checksum, start):
            self._flush()
            self._run = ChunkRun(number, checksum, start, start)
        # Chunks small enough to be gathered have no CRC32C of their own.
        self._run.add(end, data, count, chunk.crc32c)
        return count * frame_bytes

    def _refuse_chunk(self, number: int, stream: Stream, chunk: Chunk | str) -> None:
        """One that contradicts itself or the file's size costs its stream; a corrupt one is NACKed, to a bound."""
        if isinstance(chunk, str):
            self._break_stream(number, ErrorCode.CHUNK_INVALID, chunk)
            return
        last = chunk.end - 1
        if chunk.end > stream.size:
            detail = f"end_byte {last} of a file of {stream.size} bytes"
            self._break_stream(number, ErrorCode.CHUNK_BEYOND_END, detail)
            return
        self._flush()
        self._events.append(ChunkRefused(number, ErrorCode.CHUNK_CORRUPT))
        if stream.refuse(chunk.start):
            detail = f"bytes {chunk.start}-{last} were refused too often"
            self._break_stream(number, ErrorCode.NACKS_EXHAUSTED, detail)
        else:
            self.refuse_range(number, Span(chunk.start, chunk.end), ErrorCode.CHUNK_CORRUPT, 0)

    def _addressed(self, number: int) -> Stream | None:
        """The stream a frame is for. A frame for one that has ended may have been in flight, and is dropped."""
        stream = self.streams.get(number)
        if stream is None and not self.streams.is_used(number):
            self.streams.use(number)
            self._break_stream(number, ErrorCode.STREAM_UNKNOWN, f"stream {number} was never opened")
        return stream

    def _break_stream(self, number: int, code: ErrorCode, detail: str) -> None:
        self._flush()
        self.fail_stream(number, code, detail)
        self._events.append(StreamFailed(number, code, detail))

    def _end(self, number: int) -> None:
        self.streams.end(number)
        self._outbox.forget(number)

    def _hold(self, state: ConnectionState) -> None:
        self.state = state
        self._held = True

    def _leave(self, state: ConnectionState, to: ConnectionState) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"the connection is {self.state.name}, not {state.name}")
        self.state = to
        self._held = False

    def _stream(self, number: int, state: StreamState) -> Stream:
        stream = self.streams.get(number)
        if stream is None or stream.state is not state:
            raise LocalProtocolError(f"stream {number} is not {state.name}")
        return stream

    def _flush(self) -> None:
        if self._run is not None:
            self._events.append(self._run.event(self._reader.buffer.lease, self._reader.buffer.borrow))
            self._run = None

    def take_events(self) -> list[ServerEvent]:
        """What followed from answers and time since the last events were given."""
        events, self._events = self._events, []
        return events
