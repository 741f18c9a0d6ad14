"""What the server's end of a connection says, and how that changes its state. PROTOCOL.md §3 to §15."""

from collections.abc import Callable, Sequence

from protocol import frames
from protocol.constants import SIZE_UNKNOWN, VERSION, Action, UploadState
from protocol.errors import ErrorCode
from protocol.events import ConnectionFailed, ServerEvent, StreamFailed
from protocol.exceptions import LocalProtocolError
from protocol.outbox import Outbox, withheld_max
from protocol.ranges import Span
from protocol.state import ConnectionState, StreamState
from protocol.streams import Streams

HANDSHAKE_STATES = frozenset({ConnectionState.START, ConnectionState.DECIDING, ConnectionState.CHALLENGED})
"""The states before WELCOME, in which a failure is answered by REFUSED."""

WAIT_MS = 5000
"""How long a device waits at least after an error whose end is not known: about what a restart takes. The caller draws
waits between this and twice as much, so that devices refused together do not come back together."""


class ServerOutput:
    """The answering half of `ServerConnection`: the caller's answers become frames."""

    __slots__ = ("_draw_wait_ms", "_events", "_held", "_outbox", "_requests", "going_away", "state", "streams")

    def __init__(self, streams_max: int, window_bytes: int, draw_wait_ms: Callable[[], int]) -> None:
        self._events: list[ServerEvent] = []
        self._outbox = Outbox()
        self._draw_wait_ms = draw_wait_ms
        self._held = False
        self._requests = 0
        self.state = ConnectionState.START
        self.streams = Streams(streams_max, window_bytes)
        self.going_away = False

    @property
    def is_held(self) -> bool:
        """Input waits for the caller's answer to an event."""
        return self._held

    @property
    def has_output(self) -> bool:
        """Whether `data_to_send` gives anything."""
        return not self._outbox.is_empty

    def take_events(self) -> list[ServerEvent]:
        """The events since the last call that follow from answers and time."""
        events, self._events = self._events, []
        return events

    # The connection.

    def challenge(self, nonce: bytes) -> bytes:
        """Ask for the proof of a device's secret. Returns the frame as sent, which the proof must cover."""
        self._leave(ConnectionState.DECIDING, ConnectionState.CHALLENGED)
        return self._outbox.send(0, frames.Challenge(nonce))

    def expire(self) -> None:
        """The credential's time is over: send nothing but PONG and take no request until `refreshed`. §13."""
        if self.state is ConnectionState.OPEN:
            self.state = ConnectionState.EXPIRED
            self._outbox.withhold(withheld_max(self.streams.streams_max))

    def refreshed(self, authority_s: int) -> None:
        """The new token is good: send what was withheld."""
        self.send(0, frames.Refreshed(authority_s))
        if self.state is ConnectionState.EXPIRED:
            self.state = ConnectionState.OPEN
            self._held = False
            self._outbox.release()

    def answered(self) -> None:
        """One OPEN, QUERY or ABORT is dealt with; call this once for each such event."""
        self._requests -= 1
        if self.state in (ConnectionState.OPEN, ConnectionState.EXPIRED):
            self._held = self._outbox.is_full

    def go_away(self, reconnect_ms: int, detail: str) -> None:
        """Ask the device to come back later; from now on no OPEN is answered."""
        self.going_away = True
        if self.state in (ConnectionState.OPEN, ConnectionState.EXPIRED):
            self.send(0, frames.Goaway(ErrorCode.SHUTTING_DOWN, reconnect_ms, detail))

    def fail(self, code: ErrorCode, detail: str, wait_ms: int = 0) -> None:
        """End the connection: REFUSED before WELCOME, ERROR after. The caller then closes as §15 says.

        A `wait_ms` of 0 is drawn where the device has to wait.
        """
        if self.state is ConnectionState.CLOSING:
            return
        wait_ms = wait_ms or self._wait_ms(code)
        if self.state in HANDSHAKE_STATES:
            self.send(0, frames.Refused(code, code.action, VERSION, VERSION, wait_ms, detail))
        else:
            self.send(0, frames.Error(code, code.action, wait_ms, text=detail))
        self._outbox.close()
        self.state = ConnectionState.CLOSING
        self._held = False
        self._events.append(ConnectionFailed(code, detail))

    def send(self, number: int, frame: frames.ControlFrame) -> None:
        """Queue a frame that changes no state, such as VERIFYING or STATUS; no larger than the device accepts."""
        self._outbox.send(number, frame)
        if self._outbox.is_full:
            self._held = True

    # Streams.

    def opened(self, number: int, opened: frames.Opened, size: int) -> None:
        """The upload is open at its N, or complete. `size` is SIZE_UNKNOWN where it is not declared."""
        stream = self.streams.get(number)
        if stream is None or stream.state is not StreamState.OPENING:
            raise LocalProtocolError(f"stream {number} is not OPENING")
        stream.size = size
        stream.next_expected_byte = opened.next_expected_byte
        stream.state = StreamState.RECEIVING
        self._held = False
        self.send(number, opened)
        if opened.state is UploadState.COMPLETE:
            self.streams.end(number)

    def acknowledge(self, number: int, next_expected_byte: int, beyond: Sequence[Span], freed_bytes: int) -> None:
        """All below `next_expected_byte`, and `beyond`, are durable; this frees `freed_bytes` of the window."""
        stream = self.streams.get(number)
        if stream is None:
            return
        self.streams.free_window(stream, freed_bytes)
        stream.clear_refusals(next_expected_byte, beyond)
        stream.next_expected_byte = next_expected_byte
        self._outbox.acknowledge(number, next_expected_byte, beyond)

    def refuse_range(self, number: int, refused: Span, code: ErrorCode, freed_bytes: int) -> None:
        """NACK these bytes; this frees `freed_bytes` of the window. The stream stays open.

        The last refusal of one range that is allowed ends the stream instead, with StreamFailed for the caller.
        INCOMPLETE and CHUNK_DROPPED do not count: neither finds fault with what was sent. §9
        """
        stream = self.streams.get(number)
        if stream is None:
            return
        self.streams.free_window(stream, freed_bytes)
        self.streams.allow_resend(refused.end - refused.start)
        if code is ErrorCode.INCOMPLETE:
            stream.state = StreamState.RECEIVING
        elif code is not ErrorCode.CHUNK_DROPPED and stream.refuse(refused):
            detail = f"bytes {refused.start}-{refused.end - 1} were refused too often"
            self._break_stream(number, ErrorCode.NACKS_EXHAUSTED, detail)
            return
        self.send(number, frames.Nack(code, refused.start, refused.end - 1, stream.next_expected_byte, code.summary))

    def finished(self, number: int, finished: frames.Finished) -> None:
        """The upload is complete; the stream is over."""
        self._end(number)
        self.send(number, finished)

    def aborted(self, number: int, upload_id: int) -> None:
        """The upload is aborted; the stream is over."""
        self._end(number)
        self.send(number, frames.Aborted(upload_id))

    def fail_stream(self, number: int, code: ErrorCode, detail: str, wait_ms: int = 0) -> None:
        """End one stream with an ERROR; the connection lives on. A `wait_ms` of 0 is drawn as in `fail`."""
        stream = self.streams.get(number)
        next_expected_byte = SIZE_UNKNOWN
        if stream is not None and stream.state is StreamState.OPENING:
            self._held = False
        elif stream is not None:
            next_expected_byte = stream.next_expected_byte
        self._end(number)
        wait_ms = wait_ms or self._wait_ms(code)
        self.send(number, frames.Error(code, code.action, wait_ms, next_expected_byte, detail))

    def _break_stream(self, number: int, code: ErrorCode, detail: str) -> None:
        """End a stream for what the device did, and let the caller know."""
        self.fail_stream(number, code, detail)
        self._events.append(StreamFailed(number, code, detail))

    def _end(self, number: int) -> None:
        self.streams.end(number)
        self._outbox.forget(number)

    def _wait_ms(self, code: ErrorCode) -> int:
        return self._draw_wait_ms() if code.action is Action.WAIT else 0

    def _leave(self, state: ConnectionState, to: ConnectionState) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"the connection is {self.state.name}, not {state.name}")
        self.state = to
        self._held = False
