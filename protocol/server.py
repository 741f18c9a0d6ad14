"""The server's end of a connection, sans-I/O. PROTOCOL.md §3 to §15.

The caller receives into `get_buffer`, calls `received`, handles the events, answers them (see `server_output`), and
sends `data_to_send`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from protocol import codec, frames
from protocol.chunk_reader import ChunkReader, forms_of
from protocol.chunks import CHECKSUM_KINDS, ChunkFault, drop_chunk
from protocol.constants import (
    FRAME_BYTES_MIN,
    HANDSHAKE_FRAME_BYTES_MAX,
    OFFSET_MAX,
    SIZE_UNKNOWN,
    STREAM_CONNECTION,
    Feature,
    FrameType,
)
from protocol.errors import ErrorCode
from protocol.events import (
    AbortRequested,
    ChunkRefused,
    FinishRequested,
    HelloReceived,
    OpenRequested,
    ProofReceived,
    QueryReceived,
    ServerEvent,
    TokenOffered,
)
from protocol.exceptions import ProtocolError
from protocol.frame_buffer import BufferSource, Owner
from protocol.handshake import check_hello
from protocol.naming import check_open
from protocol.reader import Head
from protocol.server_output import HANDSHAKE_STATES, ServerOutput
from protocol.state import SERVER_ACCEPTS, SERVER_HOLDS, STREAM_ACCEPTS, ConnectionState, StreamState
from protocol.streams import Stream
from protocol.timers import Probe, Timers, TimerSettings

_REQUESTS = frozenset({FrameType.OPEN, FrameType.QUERY, FrameType.ABORT})
_ON_CONNECTION = frozenset(
    {FrameType.HELLO, FrameType.PROOF, FrameType.REFRESH, FrameType.PING, FrameType.PONG}
)  # the frames of a device that belong to no stream

_NEVER = float("inf")
_UNTIMED = frozenset({ConnectionState.DECIDING, ConnectionState.CLOSING})
"""States in which the device waits for the caller, or has nothing more to say."""

REQUESTS_MAX = 64
"""OPENs, QUERYs and ABORTs that wait for an answer. Input behind them waits, so a flood of them costs no memory."""

TURN_COST = 128
"""What the frames of one turn may cost, before others get theirs: a millisecond or two. A frame costs 1; gathered ones
cost less, see `ChunkReader.cost`."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the server allows each connection."""

    chunk_bytes_max: int
    window_bytes: int
    streams_max: int
    features: Feature
    timers: TimerSettings


class ServerConnection(ServerOutput):
    """One connection; `now` arguments are monotonic seconds.

    `draw_wait_ms` gives the `wait_ms` of an error whose action is WAIT. It should be random, from WAIT_MS on.
    """

    # The answers are its base and no object beside it: each idle connection would pay for one.
    __slots__ = ("_has_more", "_limits", "_reader", "_starved_s", "timers")

    def __init__(
        self, limits: ServerLimits, buffers: BufferSource, now: float, draw_wait_ms: Callable[[], int]
    ) -> None:
        super().__init__(limits.streams_max, limits.window_bytes, draw_wait_ms)
        self._limits = limits
        self._reader = ChunkReader(buffers)
        self._has_more = False
        self._starved_s: float | None = None
        self.timers = Timers(limits.timers, now)

    def get_buffer(self) -> memoryview:
        """Memory to receive the next bytes into. Do not receive while `is_held`, `is_starved` or `has_more`."""
        return self._reader.buffer.writable(
            HANDSHAKE_FRAME_BYTES_MAX if self.state in HANDSHAKE_STATES else SIZE_UNKNOWN
        )

    def received(self, count: int, now: float) -> list[ServerEvent]:
        """Take `count` bytes that were put into the buffer. Returns the events in order."""
        self._reader.buffer.received(count)
        self.timers.received(count, now)
        return self._parse(now)

    def resume(self, now: float) -> list[ServerEvent]:
        """Go on with input that waited for an answer, for memory or its turn. Returns the events in order."""
        self._reader.buffer.restore()
        self.timers.paused(now)
        return self._parse(now)

    @property
    def has_more(self) -> bool:
        """Input waits for its next turn, so that a connection with many frames does not keep others waiting."""
        return self._has_more

    @property
    def is_starved(self) -> bool:
        """Input waits until the pool has memory to lend."""
        return self._reader.buffer.starved

    @property
    def has_lease(self) -> bool:
        """The connection receives into a lease."""
        return self._reader.buffer.lease is not None

    @property
    def owner(self) -> Owner | None:
        """Whose share of the pool this connection's memory counts against; set it when the device is admitted."""
        return self._reader.buffer.owner

    @owner.setter
    def owner(self, owner: Owner) -> None:
        self._reader.buffer.owner = owner

    @property
    def deadline(self) -> float:
        """When `check_time` has something to do, should nothing arrive or go out until then; infinite for never."""
        return _NEVER if self.state in _UNTIMED else self.timers.deadline

    def check_time(self, now: float) -> list[ServerEvent]:
        """What is due by now: queues a PING, or ends the connection. Call at `deadline`, and about once a second."""
        buffer = self._reader.buffer
        if self._held:
            self.paused(now)
        buffer.look(now)
        if self.state in _UNTIMED:
            return []
        if buffer.starved:
            self.timers.paused(now)
            self._reassure(now)
        else:
            self._starved_s = None
        due = self.timers.check(now)
        if due is Probe.PING:
            # Without authority nothing is sent but PONG. §13
            if self.state is ConnectionState.OPEN:
                self.send(0, frames.Ping(int(now) & 0xFFFFFFFF))
        elif due is not None:
            self.fail(*due)
        return self.take_events()

    def paused(self, now: float) -> None:
        """The caller does not read: the silence until now was not the device's."""
        self.timers.paused(now)
        # A frame that only waits for memory is judged on: others may need the memory that it has.
        if self._held or self._has_more or not self.is_starved:
            self._reader.buffer.paused(now)

    def _reassure(self, now: float) -> None:
        """Send PING while input waits for memory: to the device the link must not look dead. §12"""
        if self._starved_s is None:
            self._starved_s = now
        elif now >= self._starved_s + self._limits.timers.rate_window_s:
            self._starved_s = now
            if self.state is ConnectionState.OPEN:
                self.send(0, frames.Ping(int(now) & 0xFFFFFFFF))

    def data_to_send(self, now: float) -> bytes:
        """Everything to be sent since the last call."""
        data = self._outbox.take()
        if data:
            self.timers.sent(now)
        return data

    def close(self) -> None:
        """Give back what is borrowed: the transport is gone."""
        self._reader.buffer.close()
        self.state = ConnectionState.CLOSING

    def welcome(self, welcome: frames.Welcome) -> None:
        """Let the device in, on these terms."""
        self._leave(ConnectionState.DECIDING, ConnectionState.OPEN)
        self._reader.forms = forms_of(Feature(welcome.features))
        self._reader.chunk_bytes_max = self._limits.chunk_bytes_max
        self.timers.welcomed()
        self.send(0, welcome)

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
        self.timers.frame(reader.save_rest() and not self._held, now)
        return self.take_events()

    def _take_turn(self) -> bool:
        """Take the frames of one turn. Returns whether there may be more. Raises ProtocolError."""
        reader = self._reader
        if reader.buffer.lost_header and not self._held and self._is_dropping():
            return False
        reader.cost = 0
        while reader.cost < TURN_COST:
            if self._held or self.state is ConnectionState.CLOSING or (head := self._next()) is None:
                return False
            reader.cost += 1
            kind = head.type
            if kind in CHECKSUM_KINDS and kind is not None:
                self._take_chunks(kind, head)
            elif kind is None or self._take_control(kind, head):
                reader.consume(head.frame_bytes)
        return True

    def _next(self) -> Head | None:
        """The next whole frame, if the state takes it. Raises ProtocolError."""
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
        """Take a control frame. Returns False when it has to wait."""
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
        elif frame.size > OFFSET_MAX:
            self._break_stream(number, ErrorCode.SIZE_INVALID, f"FINISH says {frame.size}, above 2^63-1")
        elif stream.size not in (SIZE_UNKNOWN, frame.size):
            detail = f"FINISH says {frame.size}; OPEN or an earlier FINISH bound the size to {stream.size}"
            self._break_stream(number, ErrorCode.SIZE_INVALID, detail)
        else:
            stream.size = frame.size
            stream.state = StreamState.FINISHING
            self._events.append(FinishRequested(number, frame))
        return True

    def _take_chunks(self, kind: FrameType, head: Head) -> None:
        reader, number = self._reader, head.stream
        self._check_form(kind, number)
        stream = self._addressed(number)
        if stream is None:
            reader.consume(head.frame_bytes)
        elif kind not in STREAM_ACCEPTS[stream.state]:
            self._held = True
        elif fault := reader.take_chunks(kind, head, stream, self.streams, self._events):
            self._refuse_chunk(number, fault)

    def _is_dropping(self) -> bool:
        """Answer a chunk whose memory was taken back, once it is over. Returns whether input behind it has to wait."""
        buffer = self._reader.buffer
        header = buffer.lost_header
        if buffer.missing_bytes:
            return True
        code, _, number, _ = codec.PREFIX.unpack_from(header)
        kind = FrameType(code)
        self._check_form(kind, number)
        stream = self._addressed(number)
        if stream is not None and kind not in STREAM_ACCEPTS[stream.state]:
            self._held = True
            return True
        buffer.lost_header = b""
        if stream is not None:
            self._refuse_chunk(number, drop_chunk(header, kind, stream.size))
        return False

    def _check_form(self, kind: FrameType, number: int) -> None:
        if kind not in self._reader.forms:
            raise ProtocolError(ErrorCode.FRAME_UNEXPECTED, f"{kind.name} was not negotiated")
        if number == STREAM_CONNECTION:
            raise ProtocolError(ErrorCode.FRAME_MALFORMED, f"{kind.name} on stream 0")

    def _refuse_chunk(self, number: int, fault: ChunkFault) -> None:
        self._flush()
        if fault.refused is None:
            self._break_stream(number, fault.code, fault.detail)
        else:
            self._events.append(ChunkRefused(number, fault.code))
            self.refuse_range(number, fault.refused, fault.code, 0)

    def _addressed(self, number: int) -> Stream | None:
        """The stream of a frame. None: drop the frame, since the stream has ended or was never opened."""
        stream = self.streams.get(number)
        if stream is None and not self.streams.is_used(number):
            self.streams.use(number)
            self._flush()
            self._break_stream(number, ErrorCode.STREAM_UNKNOWN, f"stream {number} was never opened")
        return stream

    def _hold(self, state: ConnectionState) -> None:
        self.state = state
        self._held = True

    def _flush(self) -> None:
        self._reader.flush(self._events)
