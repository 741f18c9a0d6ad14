"""The transport of one device: bytes between a socket and a session, back-pressure both ways, last words. §15."""

import asyncio
import ssl
from collections.abc import Coroutine
from dataclasses import replace
from ipaddress import ip_address
from typing import Protocol, cast

from daemon.tcp.proxy_header import Endpoint, NeedMore, ProxyHeader, ProxyInvalid, parse
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.session import Session
from daemon.telemetry.metrics import CloseReason
from protocol.constants import LAST_WORDS_DISCARD_BYTES, LAST_WORDS_DISCARD_S
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, ServerEvent
from protocol.server import ServerConnection
from protocol.state import ConnectionState

STALLED_S = 30.0
"""A device that takes no answer for this long does not read: its acknowledgements have nowhere to go."""


LOOK_AHEAD_S = 2.0
"""What is due within this time gets a timer of its own. The next sweep comes in a second, or later when it is busy."""

CROWDED_BYTES = 4096
"""Read at once while memory is scarce: ten thousand connections then add 40 MB at most."""

UNWRITTEN_BYTES_MAX = 8 * 1024 * 1024
"""Of one connection, then it is not read until some is written: what others sent waits behind it for the disk, some
milliseconds' worth, and the pool has some left to lend."""

GOODBYE = "the server is about to stop"


class Host(Protocol):
    """The server that a connection belongs to."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def accepted(self, connection: "DeviceConnection") -> None:
        """There is a connection, from now on to be looked at. One that ends amid asyncio's own TLS never was."""
        ...

    def connected(self, connection: "DeviceConnection", peer: Endpoint | None) -> Session:
        """A session for the peer, whose address is known now; it has failed already when there is no room for it."""
        ...

    def trusts(self, peer: Endpoint) -> bool:
        """Whether the peer's word on where a connection comes from is believed."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run work of the connection in the background."""
        ...

    def disconnected(self, connection: "DeviceConnection", reason: CloseReason) -> None:
        """The connection is over."""
        ...

    @property
    def handshake_timeout_s(self) -> float:
        """How long a PROXY header, and then a TLS handshake, may take."""
        ...


class DeviceConnection(asyncio.BufferedProtocol):
    """One connection. `is_proxied` says that a PROXY header comes first, `tls` that TLS begins behind it.

    `get_buffer` asks for the header's bytes alone, so that those of the TLS handshake stay where TLS looks for them.
    """

    __slots__ = (
        "_discarded_bytes",
        "_due",
        "_host",
        "_is_closing",
        "_is_due",
        "_is_eof",
        "_is_handling",
        "_is_held",
        "_is_paused",
        "_is_waiting",
        "_last_words",
        "_made_s",
        "_missing_bytes",
        "_outgoing_bytes_max",
        "_peer",
        "_pool",
        "_preface",
        "_reason",
        "_socket",
        "_stalled_s",
        "_tls",
        "_transport",
        "_unwritten_bytes",
        "session",
    )

    def __init__(
        self,
        host: Host,
        pool: ReceivePool,
        outgoing_bytes_max: int,
        is_proxied: bool,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._pool = pool
        self._outgoing_bytes_max = outgoing_bytes_max
        self._preface = b""
        self._missing_bytes = _missing(parse(b"")) if is_proxied else 0
        self._tls = tls
        self._made_s = host.now()
        self._peer: Endpoint | None = None
        # `_socket` is below TLS; `_transport` is what frames are sent to, so None until the TLS handshake is done.
        self._socket: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._reason = CloseReason.DEVICE
        self._is_held = False
        self._is_handling = False
        self._is_due = False
        self._is_paused = False
        self._is_waiting = False
        self._is_eof = False
        self._is_closing = False
        self._discarded_bytes = 0
        self._unwritten_bytes = 0
        self._stalled_s: float | None = None
        self._due: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self.session: Session | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's, though they are what its documentation promises.
        self._socket = cast(asyncio.Transport, transport)
        self._host.accepted(self)
        name = transport.get_extra_info("peername")
        # A link-local address carries its zone, which is no part of what is shown or counted.
        peer = Endpoint(ip_address(name[0].partition("%")[0]), name[1]) if isinstance(name, tuple) else None
        if not self._missing_bytes:
            self._begin(self._socket, peer)
            return
        self._peer = peer
        if peer is None or not self._host.trusts(peer):
            self._reason = CloseReason.PROXY_INVALID
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the interface's argument
        if self._protocol is None or self._is_closing:
            return self._pool.shared[: self._missing_bytes or None]
        buffer = self._protocol.get_buffer()
        # The others, too, become readable while too much waits to be written: they get little, and then pause. Where
        # nothing is left to lend, what is read beyond the pool's memory may have to stay with its connection.
        is_scarce = self._pool.is_full or (self._pool.is_short and not self._protocol.has_lease)
        return buffer[:CROWDED_BYTES] if is_scarce else buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_closing:
            self._discard(nbytes)
        elif self._protocol is None:
            self._take_preface(bytes(self._pool.shared[:nbytes]))
        else:
            self._handle(self._protocol.received(nbytes, self._host.now()))

    def eof_received(self) -> bool:
        self._is_eof = True
        # Inside TLS nothing can be sent any more: asyncio closes in answer to the end of input.
        if self._is_closing or self._transport is None or not self._transport.can_write_eof():
            return False
        self._settle()
        return not self._is_closing

    def pause_writing(self) -> None:
        self._stalled_s = self._host.now()
        self._settle()

    def resume_writing(self) -> None:
        self._stalled_s = None
        self._settle()

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
        self._end()

    # What the session and the server call.

    def changed(self) -> None:
        """There is something to send, or input that waited may go on."""
        # Within `_handle` it is seen anyway; and behind the last words nothing may be written.
        if self._protocol is not None and not self._is_handling and not self._is_closing:
            self._handle(self._protocol.take_events())

    def check_time(self, now: float) -> None:
        """Do what is due by now. The server calls this about once a second; what is due before gets a timer."""
        session, protocol = self.session, self._protocol
        if self._is_closing:
            return
        if session is None or protocol is None:
            if now - self._made_s > self._host.handshake_timeout_s:
                self._reason = CloseReason.PROXY_INVALID
                self.abort()
            return
        if self._is_paused:
            # What is not read cannot be told from silence.
            protocol.timers.paused(now)
        session.check_time(now)
        if self._stalled_s is not None and now - self._stalled_s > STALLED_S:
            protocol.fail(ErrorCode.NOT_READING, f"no answer was read for {STALLED_S:g} s")
        events = [*protocol.check_time(now), *protocol.take_events()]
        # Of ten thousand connections nearly all have nothing to do.
        if events or protocol.has_output:
            self._handle(events)
        self._look_again(now)

    def _look_again(self, now: float) -> None:
        """Check the time exactly when something is due, if that is soon."""
        session = self.session
        if session is None or self._is_closing or self._due is not None:
            return
        left_s = min(session.deadline(now), session.connection.deadline) - now
        if left_s < LOOK_AHEAD_S:
            self._due = asyncio.get_running_loop().call_later(max(left_s, 0), self._time_is_due)

    def _time_is_due(self) -> None:
        self._due = None
        self.check_time(self._host.now())

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

    # Within.

    @property
    def _protocol(self) -> ServerConnection | None:
        return None if self.session is None else self.session.connection

    def _begin(self, transport: asyncio.Transport, peer: Endpoint | None) -> None:
        self.session = self._host.connected(self, peer)
        if self._tls is None:
            self._use(transport)
        else:
            # Until TLS listens nothing may be read, or the first bytes of its handshake would be taken for a frame.
            transport.pause_reading()
            self._host.spawn(self._secure(transport, self._tls))

    async def _secure(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        if transport.is_closing():
            return
        secured, error = None, None
        timeout_s = self._host.handshake_timeout_s
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, self, tls, server_side=True, ssl_handshake_timeout=timeout_s
            )
        except OSError as failed:
            error = failed
        # A connection that ends amid the handshake is not told so by asyncio.
        if secured is None or transport.is_closing():
            self.connection_lost(error)
        else:
            self._use(secured)

    def _use(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=self._outgoing_bytes_max)
        self.changed()
        self._look_again(self._host.now())

    def _take_preface(self, data: bytes) -> None:
        self._preface += data
        try:
            header = parse(self._preface)
        except ProxyInvalid:
            self._reason = CloseReason.PROXY_INVALID
            self.abort()
            return
        self._missing_bytes = _missing(header)
        if isinstance(header, ProxyHeader) and self._socket is not None:
            self._preface = b""
            self._begin(self._socket, header.source or self._peer)
            self._peer = None

    def _handle(self, events: list[ServerEvent]) -> None:
        session, protocol = self.session, self._protocol
        if session is None or protocol is None:
            return
        self._is_handling = True
        self._is_held = self._is_held or protocol.is_held
        try:
            while events or (self._is_held and not protocol.is_held):
                if not events:
                    events = protocol.resume(self._host.now())
                    self._is_held = protocol.is_held
                for event in events:
                    session.handle(self._charged(event) if isinstance(event, ChunksReceived) else event)
                events = protocol.take_events()
        finally:
            self._is_handling = False
        self._settle()

    def _charged(self, chunks: ChunksReceived) -> ChunksReceived:
        count = chunks.end - chunks.start
        self._unwritten_bytes += count
        return replace(chunks, lease=self._pool.charge(count, chunks.lease, self._written))

    def _written(self, count: int) -> None:
        had_enough = self._has_enough
        self._unwritten_bytes -= count
        if had_enough and not self._has_enough and not self._is_handling:
            self._settle()

    @property
    def _has_enough(self) -> bool:
        return self._unwritten_bytes >= UNWRITTEN_BYTES_MAX

    def _settle(self) -> None:
        """Send what is queued, and read on if there is room for it."""
        session, protocol = self.session, self._protocol
        if session is None or protocol is None or self._is_closing:
            return
        self._flush()
        if protocol.state is ConnectionState.CLOSING:
            if self._reason is CloseReason.DEVICE:
                self._reason = CloseReason.ERROR
            self._shut_down()
            return
        if self._is_eof and session.is_quiet:
            self._shut_down()
            return
        is_stalled = self._stalled_s is not None
        needs_memory = protocol.is_starved or self._pool.is_full
        # What it waits for may have come back before it waited: where nothing is lent nothing will come.
        can_go_on = protocol.has_more or (protocol.is_starved and not self._pool.lent_bytes)
        if can_go_on and not is_stalled:
            if not self._is_due:
                self._is_due = True
                asyncio.get_running_loop().call_soon(self._turn_came)
        elif needs_memory and not self._is_waiting:
            self._is_waiting = True
            self._pool.when_free(self._memory_is_free)
        self._pause(protocol.is_held or can_go_on or needs_memory or self._has_enough or is_stalled)

    def _flush(self) -> None:
        if self._protocol is not None and self._transport is not None:
            data = self._protocol.data_to_send(self._host.now())
            if data:
                self._transport.write(data)

    def _pause(self, wanted: bool) -> None:
        if wanted is self._is_paused or self._transport is None or self._transport.is_closing():
            return
        self._is_paused = wanted
        if wanted:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _turn_came(self) -> None:
        self._is_due = False
        self._go_on()

    def _memory_is_free(self) -> None:
        self._is_waiting = False
        self._go_on()

    def _go_on(self) -> None:
        if self._is_handling:
            # What it gives back itself may be what it waits for: its events are dealt with in order, then it goes on.
            self._is_held = True
        elif self._protocol is not None and not self._is_closing:
            self._handle(self._protocol.resume(self._host.now()))

    def _end(self) -> None:
        """Once the transport is gone: take what was received, turn by turn, then let the session go."""
        session = self.session
        if session is not None and session.connection.has_more:
            self._handle(session.connection.resume(self._host.now()))
            asyncio.get_running_loop().call_soon(self._end)
            return
        if session is not None:
            session.closed()
            session.connection.close()
            # They refer to each other: parted, both go at once and not with some later collection.
            self.session = None
        self._host.disconnected(self, self._reason)

    def _shut_down(self) -> None:
        """End the sending side and read on for a while: closing with unread input would reset the connection."""
        if self._is_closing or self._transport is None or self._protocol is None:
            return
        self._is_closing = True
        self._pause(False)
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


def _missing(header: ProxyHeader | NeedMore) -> int:
    return header.missing_bytes if isinstance(header, NeedMore) else 0
