"""The asyncio protocol of one device: bytes between a socket and a session, and last words. PROTOCOL.md §15."""

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Protocol, cast

from daemon.adapters.clock import Clock
from daemon.tcp.flow import STALLED_S, Flow, PauseReason
from daemon.tcp.opening import Opening, peer_of, secure
from daemon.tcp.proxy_header import PeerAddress, ProxyInvalid
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.session import Session
from daemon.telemetry.metrics import CloseReason
from protocol.constants import LAST_WORDS_DISCARD_BYTES, LAST_WORDS_DISCARD_S
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, ServerEvent
from protocol.server import ServerConnection
from protocol.state import ConnectionState

LOOK_AHEAD_S = 2.0
"""A limit that is due within this time gets a timer: the next sweep comes in a second, or later when busy."""

GOODBYE = "the server is about to stop"


class Host(Protocol):
    """The server that a connection belongs to."""

    @property
    def clock(self) -> Clock: ...

    @property
    def handshake_timeout_s(self) -> float:
        """How long a PROXY header, and then a TLS handshake, may take."""
        ...

    @property
    def outgoing_bytes_max(self) -> int:
        """Answers that may wait for a device to read them, before it is read no more itself."""
        ...

    def accepted(self, connection: "DeviceConnection") -> None:
        """Look at the connection from now on. One that ends during asyncio's own TLS handshake is never reported."""
        ...

    def connected(self, connection: "DeviceConnection", peer: PeerAddress | None) -> Session:
        """A session for the peer, whose address is known now; it has failed already when there is no room for it."""
        ...

    def trusts(self, peer: PeerAddress) -> bool:
        """Whether the peer's PROXY header is believed."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run work of the connection in the background."""
        ...

    def disconnected(self, connection: "DeviceConnection", reason: CloseReason) -> None:
        """The connection is over."""
        ...


class DeviceConnection(asyncio.BufferedProtocol):
    """One connection. `is_proxied` says that a PROXY header comes first, `tls` that TLS begins behind it."""

    __slots__ = (
        "_clock",
        "_discarded_bytes",
        "_due",
        "_flow",
        "_host",
        "_is_closing",
        "_is_eof",
        "_is_handling",
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

    def __init__(
        self,
        host: Host,
        pool: ReceivePool,
        is_proxied: bool,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._clock = host.clock
        self._pool = pool
        self._opening: Opening | None = Opening(is_proxied, tls, host.handshake_timeout_s, self._clock.monotonic_s())
        # `_socket` is below TLS; `_transport` carries frames, so it is None until the TLS handshake is done.
        self._socket: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._flow = Flow(pool)
        self._reason = CloseReason.DEVICE
        self._is_handling = False
        self._resumes = False
        self._is_eof = False
        self._is_closing = False
        self._discarded_bytes = 0
        self._due: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self._protocol: ServerConnection | None = None
        self.session: Session | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's, though they are what its documentation promises.
        self._socket = cast(asyncio.Transport, transport)
        self._host.accepted(self)
        opening, peer = self._opening, peer_of(transport)
        if opening is None:
            raise RuntimeError("a link begins only once")
        opening.peer = peer
        if not opening.missing_bytes:
            self._begin(self._socket, opening)
        elif peer is None or not self._host.trusts(peer):
            self._refuse_proxy()

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
            self._handle(protocol.received(nbytes, self._clock.monotonic_s()))
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
        if self._socket is None:  # `_secure` has seen it already
            return
        for timer in (self._due, self._last_words):
            if timer is not None:
                timer.cancel()
        if exc is not None and self._reason is CloseReason.DEVICE:
            self._reason = CloseReason.LOST
        self._is_closing = True
        self._socket = self._transport = None
        self._flow.close()
        self._end()

    # What the session, the flow and the server call.

    def changed(self) -> None:
        """There is something to send, or input that waited may go on."""
        # `_handle` looks by itself, and nothing may be written behind the last words.
        if self._protocol is not None and not self._is_handling and not self._is_closing:
            self._handle(self._protocol.take_events())

    def go_on(self) -> None:
        """Take the input that waited for memory or its turn."""
        if self._is_handling:
            # The events at hand gave back the memory that this waits for: they come first, then the input.
            self._resumes = True
        elif self._protocol is not None and not self._is_closing:
            self._handle(self._protocol.resume(self._clock.monotonic_s()))

    def check_time(self, now: float) -> None:
        """Apply the limits that are due by `now`. The server calls this about once a second, and a timer in between."""
        session, protocol = self.session, self._protocol
        if self._is_closing:
            return
        if session is None or protocol is None:
            if self._opening is not None and self._opening.is_late(now):
                self._refuse_proxy()
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
            self._handle(events)
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
        if lowest is not None:
            self._is_closing = True
            lowest.abort()

    # The beginning.

    def _take_header(self, opening: Opening, data: bytes) -> None:
        try:
            is_whole = opening.take_header(data)
        except ProxyInvalid:
            self._refuse_proxy()
            return
        if is_whole and self._socket is not None:
            self._begin(self._socket, opening)

    def _refuse_proxy(self) -> None:
        self._reason = CloseReason.PROXY_INVALID
        self.abort()

    def _begin(self, transport: asyncio.Transport, opening: Opening) -> None:
        self._opening = None
        self.session = self._host.connected(self, opening.peer)
        self._protocol = self.session.connection
        if opening.tls is None:
            self._use(transport)
        else:
            # Until TLS listens nothing may be read, or the first bytes of its handshake would be taken for a frame.
            transport.pause_reading()
            self._host.spawn(self._secure(transport, opening.tls))

    async def _secure(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        secured, error = None, None
        try:
            secured = await secure(transport, self, tls, self._host.handshake_timeout_s)
        except OSError as failed:
            error = failed
        if secured is None:
            self.connection_lost(error)
        else:
            self._use(secured)

    def _use(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._flow.begin(transport, self)
        transport.set_write_buffer_limits(high=self._host.outgoing_bytes_max)
        self.changed()
        self._look_again(self._clock.monotonic_s())

    # Events and answers.

    def _handle(self, events: list[ServerEvent]) -> None:
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
            self._handle(session.connection.resume(self._clock.monotonic_s()))
            asyncio.get_running_loop().call_soon(self._end)
            return
        if session is not None:
            session.closed()
            session.connection.close()
            # They refer to each other: parted, both go at once and not with some later collection.
            self.session = self._protocol = None
        self._host.disconnected(self, self._reason)
