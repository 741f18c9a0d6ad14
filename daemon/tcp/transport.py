"""The asyncio protocol of one device: bytes between a socket and a session, and last words. PROTOCOL.md §15."""

import asyncio
import ssl
from typing import cast

from daemon.tcp.flow import STALLED_S, Flow, PauseReason
from daemon.tcp.host import Host
from daemon.tcp.opening import Opening, secure
from daemon.tcp.proxy_header import ProxyInvalid
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.session import Session
from daemon.tcp.sources import source_of
from daemon.tcp.stream import TurnedAway
from daemon.tcp.turns import ShareKey
from daemon.telemetry.metrics import CloseReason, ConnectionPhase
from protocol.constants import LAST_WORDS_DISCARD_BYTES, LAST_WORDS_DISCARD_S
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, ServerEvent
from protocol.server import ServerConnection
from protocol.state import ConnectionState

LOOK_AHEAD_S = 2.0
"""A limit that is due within this time gets a timer: the next sweep comes in a second, or later when busy."""

GOODBYE = "the server is about to stop"


class DeviceConnection(asyncio.BufferedProtocol):
    """One connection, from the moment when its link was accepted."""

    __slots__ = (
        "_clock",
        "_discarded_bytes",
        "_due",
        "_flow",
        "_host",
        "_is_closing",
        "_is_eof",
        "_is_handling",
        "_is_lost",
        "_last_words",
        "_opening",
        "_pool",
        "_protocol",
        "_reason",
        "_resumes",
        "_socket",
        "_transport",
        "session",
    )

    def __init__(self, host: "Host[DeviceConnection]", pool: ReceivePool, opening: Opening | None) -> None:
        self._host = host
        self._clock = host.clock
        self._pool = pool
        self._opening = opening
        # `_socket` is below TLS that begins behind a PROXY header; `_transport` carries frames, and is None until then.
        self._socket: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._flow = Flow(pool, host.turns, host.turns.join((source_of(opening.peer if opening else None),)))
        self._reason = CloseReason.DEVICE
        self._is_handling = False
        self._resumes = False
        self._is_eof = False
        self._is_closing = False
        self._is_lost = False
        self._discarded_bytes = 0
        self._due: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self._protocol: ServerConnection | None = None
        self.session: Session | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's, though they are what its documentation promises.
        self._socket = cast(asyncio.Transport, transport)
        opening = self._opening
        if opening is None:
            raise RuntimeError("a link begins only once")
        if self._is_closing:
            self._socket.abort()
        elif not opening.missing_bytes:
            self._use(self._socket, opening)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the interface's argument
        protocol = self._protocol
        if protocol is not None and not self._is_closing:
            return self._flow.buffer(protocol)
        missing_bytes = 0 if self._opening is None else self._opening.missing_bytes
        return self._pool.shared[: missing_bytes or None]

    def buffer_updated(self, nbytes: int) -> None:
        protocol = self._protocol
        if self._is_closing:
            self._discard(nbytes)
        elif protocol is not None:
            now = self._clock.monotonic_s()
            self._handle(protocol.received(nbytes, now), now)
        elif self._opening is not None:
            self._take_header(self._opening, bytes(self._pool.shared[:nbytes]))

    def eof_received(self) -> bool:
        self._is_eof = True
        # Inside TLS nothing can be sent any more: asyncio closes in answer to the end of input.
        if self._is_closing or self._transport is None or not self._transport.can_write_eof():
            return False
        self.changed()
        return not self._is_closing

    def pause_writing(self) -> None:
        self._flow.stall(self._clock.monotonic_s())
        self.changed()

    def resume_writing(self) -> None:
        self._flow.unstall()
        self.changed()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_lost:  # `failed` has seen it already
            return
        self._is_lost = True
        for timer in (self._due, self._last_words):
            if timer is not None:
                timer.cancel()
        if exc is not None and self._reason is CloseReason.DEVICE:
            self._reason = CloseReason.LOST
        self._is_closing = True
        self._opening = self._socket = self._transport = None
        self._flow.close()
        self._end()

    # What the session, the flow and the server call.

    def changed(self) -> None:
        """There is something to send, or input that waited may go on."""
        # `_handle` looks by itself, and nothing may be written behind the last words.
        if self._protocol is not None and not self._is_handling and not self._is_closing:
            self._handle(self._protocol.take_events(), self._clock.monotonic_s())

    def go_on(self) -> None:
        """Take the input that waited for memory or its turn."""
        if self._is_handling:
            # The events at hand gave back the memory that this waits for: they come first, then the input.
            self._resumes = True
        elif self._protocol is not None and not self._is_closing:
            now = self._clock.monotonic_s()
            self._handle(self._protocol.resume(now), now)

    def check_time(self, now: float) -> None:
        """Apply the limits that are due by `now`. The server calls this about once a second, and a timer in between."""
        session, protocol = self.session, self._protocol
        if self._is_closing:
            return
        if session is None or protocol is None:
            if self._opening is not None and self._opening.is_late(now):
                self.drop(CloseReason.TIMEOUT)
            return
        if self._flow.reasons:
            # A device that is not read looks silent.
            protocol.paused(now)
        if self._flow.reasons & PauseReason.MEMORY:
            self._pool.relieve(now)
            if not protocol.is_starved:
                self.changed()
        session.check_time(now)
        if now >= self._flow.deadline:
            protocol.fail(ErrorCode.NOT_READING, f"no answer was read for {STALLED_S:g} s")
        events = [*protocol.check_time(now), *protocol.take_events()]
        # Of ten thousand connections nearly all have nothing to do.
        if events or protocol.has_output:
            self._handle(events, now)
        self._look_again(now)

    def _look_again(self, now: float) -> None:
        """Set a timer for the next limit, if it is due soon."""
        session = self.session
        if session is None or self._is_closing or self._due is not None:
            return
        left_s = min(session.deadline(now), session.connection.deadline, self._flow.deadline) - now
        if left_s < LOOK_AHEAD_S:
            self._due = asyncio.get_running_loop().call_later(max(left_s, 0), self._time_is_due)

    def _time_is_due(self) -> None:
        self._due = None
        self.check_time(self._clock.monotonic_s())

    def go_away(self, reconnect_ms: int) -> None:
        """Ask the device to come back later."""
        if self._is_closing:
            return
        self._reason = CloseReason.DRAIN
        if self._transport is None or self.session is None or self._protocol is None:
            self.abort()
        elif self.session.admitted is None:
            self._protocol.fail(ErrorCode.SHUTTING_DOWN, GOODBYE, reconnect_ms)
            self.changed()
        else:
            self._protocol.go_away(reconnect_ms, GOODBYE)
            self._flush()

    def close(self) -> None:
        """Send what is queued, then close as §15 says."""
        if not self._is_closing:
            self._flush()
            self._shut_down()

    def abort(self) -> None:
        """Close at once."""
        lowest = self._transport or self._socket
        self._is_closing = True
        if lowest is not None:
            lowest.abort()
        elif self._opening is not None:
            self._opening.hang_up()

    def drop(self, reason: CloseReason) -> None:
        """Close at once, for this reason."""
        self._reason = reason
        self.abort()

    def failed(self, error: OSError | None) -> None:
        """The link has ended before its first frame, and asyncio does not report that."""
        if self._reason is CloseReason.DEVICE and self._opening is not None:
            # The loop's own limit of the TLS handshake may come just before the sweep.
            if self._opening.is_late(self._clock.monotonic_s()):
                self._reason = CloseReason.TIMEOUT
            elif isinstance(error, ssl.SSLError):
                self._reason = CloseReason.TLS_FAILED
        self.connection_lost(error)

    def admit(self, tenant: str, device: str) -> TurnedAway | None:
        """Take a place for the device, whose connections share one turn, or say why there is none."""
        turned_away = self._host.admit(self, tenant, device)
        if turned_away is None:
            self._share((tenant, device))
        return turned_away

    @property
    def phase(self) -> ConnectionPhase:
        """How far it is, as long as it is not admitted."""
        if self._is_closing:
            return ConnectionPhase.CLOSING
        return ConnectionPhase.HANDSHAKE if self._opening is None else self._opening.phase

    # The beginning.

    def _take_header(self, opening: Opening, data: bytes) -> None:
        try:
            is_whole = opening.take_header(data)
        except ProxyInvalid:
            self.drop(CloseReason.PROXY_INVALID)
            return
        if is_whole and self._socket is not None:
            self._host.identified(self, opening)
            if opening.tls is None:
                self._use(self._socket, opening)
            else:
                # Until TLS listens nothing may be read, or the first bytes of its handshake would be taken for a frame.
                self._socket.pause_reading()
                self._host.spawn(self._secure(self._socket, opening, opening.tls))

    async def _secure(self, transport: asyncio.Transport, opening: Opening, tls: ssl.SSLContext) -> None:
        secured, error = None, None
        try:
            secured = await secure(transport, self, tls, self._host.handshake_timeout_s)
        except OSError as failed:
            error = failed
        if secured is None:
            self.failed(error)
        else:
            self._use(secured, opening)

    def _use(self, transport: asyncio.Transport, opening: Opening) -> None:
        """Speak frames on the transport."""
        self._opening = None
        self.session = self._host.opened(self, opening)
        self._protocol = self.session.connection
        self._transport = transport
        self._flow.begin(transport, self)
        transport.set_write_buffer_limits(high=self._host.outgoing_bytes_max)
        self.changed()
        self._look_again(self._clock.monotonic_s())

    def _share(self, key: ShareKey) -> None:
        """Take turns as `key` from now on."""
        turns, before = self._host.turns, self._flow.share
        self._flow.share = turns.join(key)
        turns.leave(before)

    # Events and answers.

    def _handle(self, events: list[ServerEvent], began_s: float) -> None:
        """Handle events, which began at `began_s`, and charge the device for the time."""
        session, protocol = self.session, self._protocol
        if session is None or protocol is None:
            return
        self._is_handling = True
        # Input that waited for an answer goes on once the events have brought it.
        self._resumes = protocol.is_held or self._flow.reasons & PauseReason.ANSWER != 0
        try:
            while events or (self._resumes and not protocol.is_held):
                if not events:
                    events = protocol.resume(self._clock.monotonic_s())
                    self._resumes = protocol.is_held
                for event in events:
                    if isinstance(event, ChunksReceived):
                        session.receive(event, self._flow.hold(event.end - event.start, event.lease))
                    else:
                        session.handle(event)
                events = protocol.take_events()
        finally:
            self._is_handling = False
            self._flow.share.spend(began_s, self._clock.monotonic_s())
        self._advance()

    def _advance(self) -> None:
        """Send what is queued; then close if it is time, else let the flow decide whether to read on."""
        session, protocol = self.session, self._protocol
        if session is None or protocol is None or self._is_closing:
            return
        self._flush()
        if protocol.state is ConnectionState.CLOSING:
            if self._reason is CloseReason.DEVICE:
                self._reason = CloseReason.ERROR
            self._shut_down()
        elif self._is_eof and session.is_quiet:
            self._shut_down()
        else:
            self._flow.update(protocol)

    def _flush(self) -> None:
        if self._protocol is not None and self._transport is not None:
            data = self._protocol.data_to_send(self._clock.monotonic_s())
            if data:
                self._transport.write(data)

    # The end.

    def _shut_down(self) -> None:
        """End the sending side and read on for a while: closing with unread input would reset the connection."""
        if self._is_closing or self._transport is None or self._protocol is None:
            return
        self._is_closing = True
        self._flow.release()
        self._protocol.close()
        self._last_words = asyncio.get_running_loop().call_later(LAST_WORDS_DISCARD_S, self.abort)
        if self._is_eof:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > LAST_WORDS_DISCARD_BYTES:
            self.abort()

    def _end(self) -> None:
        """Once the transport is gone: take what was received, turn by turn, then let the session go."""
        session = self.session
        if session is not None and session.connection.has_more:
            now = self._clock.monotonic_s()
            self._handle(session.connection.resume(now), now)
            self._host.turns.wait(self._flow.share, self._end)
            return
        if session is not None:
            session.closed()
            session.connection.close()
            # They refer to each other: parted, both go at once and not with some later collection.
            self.session = self._protocol = None
        self._host.turns.leave(self._flow.share)
        self._host.disconnected(self, self._reason)
