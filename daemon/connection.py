"""The transport of one device: bytes between a socket and a session, back-pressure both ways, last words. §15."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import Protocol, cast

from daemon.buffers import ReceivePool
from daemon.metrics import CloseReason
from daemon.proxy import Endpoint, NeedMore, ProxyInvalid, parse
from daemon.session import Session
from protocol.constants import LAST_WORDS_DISCARD_BYTES, LAST_WORDS_DISCARD_S
from protocol.events import ChunksReceived, ServerEvent
from protocol.server import ServerConnection
from protocol.state import ConnectionState

STALLED_S = 30.0
"""A device that takes no answer for this long does not read: its acknowledgements have nowhere to go."""


CROWDED_BYTES = 4096
"""Read at once while too much waits to be written: ten thousand connections then add 40 MB at most."""


class Host(Protocol):
    """The server that a connection belongs to."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def connected(self, connection: "DeviceConnection", peer: Endpoint | None) -> Session:
        """A session for the peer, whose address is known now; it has failed already when there is no room for it."""
        ...

    def trusts(self, peer: Endpoint) -> bool:
        """Whether the peer's word on where a connection comes from is believed."""
        ...

    def disconnected(self, connection: "DeviceConnection", reason: CloseReason) -> None:
        """The connection is over."""
        ...


class DeviceConnection(asyncio.BufferedProtocol):
    """One connection. `is_proxied` says that a PROXY header comes first."""

    __slots__ = (
        "_discarded_bytes",
        "_host",
        "_is_closing",
        "_is_eof",
        "_is_paused",
        "_is_waiting",
        "_last_words",
        "_outgoing_bytes_max",
        "_pool",
        "_preface",
        "_reason",
        "_stalled_s",
        "_transport",
        "session",
    )

    def __init__(self, host: Host, pool: ReceivePool, outgoing_bytes_max: int, is_proxied: bool) -> None:
        self._host = host
        self._pool = pool
        self._outgoing_bytes_max = outgoing_bytes_max
        self._preface: bytes | None = b"" if is_proxied else None
        self._transport: asyncio.Transport | None = None
        self._reason = CloseReason.DEVICE
        self._is_paused = False
        self._is_waiting = False
        self._is_eof = False
        self._is_closing = False
        self._discarded_bytes = 0
        self._stalled_s: float | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self.session: Session | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's, though they are what its documentation promises.
        stream = cast(asyncio.Transport, transport)
        self._transport = stream
        stream.set_write_buffer_limits(high=self._outgoing_bytes_max)
        name = stream.get_extra_info("peername")
        # A link-local address carries its zone, which is no part of what is shown or counted.
        peer = Endpoint(ip_address(name[0].partition("%")[0]), name[1]) if isinstance(name, tuple) else None
        if self._preface is None:
            self._begin(peer)
        elif peer is None or not self._host.trusts(peer):
            self._reason = CloseReason.PROXY_INVALID
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the interface's argument
        if self._protocol is None or self._is_closing:
            return self._pool.shared
        buffer = self._protocol.get_buffer()
        # The others, too, become readable while too much waits to be written: they get little, and then pause.
        return buffer[:CROWDED_BYTES] if self._pool.is_full else buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_closing:
            self._discard(nbytes)
        elif self._protocol is None:
            self._take_preface(bytes(self._pool.shared[:nbytes]))
        else:
            self._handle(self._protocol.received(nbytes, self._host.now()))

    def eof_received(self) -> bool:
        self._is_eof = True
        if self._is_closing:
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
        if self._last_words is not None:
            self._last_words.cancel()
        if exc is not None and self._reason is CloseReason.DEVICE:
            self._reason = CloseReason.LOST
        if self.session is not None:
            self.session.closed()
            self.session.connection.close()
        self._is_closing = True
        self._transport = None
        self._host.disconnected(self, self._reason)

    # What the session and the server call.

    def changed(self) -> None:
        """There is something to send, or input that waited may go on."""
        if self._protocol is not None and self._transport is not None:
            self._handle(self._protocol.take_events())

    def check_time(self, now: float) -> None:
        """Called about once a second."""
        if self._protocol is None or self.session is None or self._is_closing:
            return
        if self._stalled_s is not None and now - self._stalled_s > STALLED_S:
            # Its last words would only join the pile, so there are none.
            self._reason = CloseReason.ERROR
            self.abort()
            return
        if self._is_paused:
            # What is not read cannot be told from silence.
            self._protocol.timers.paused(now)
        self.session.check_time(now)
        self._handle(self._protocol.check_time(now))

    def go_away(self, reconnect_ms: int) -> None:
        """Ask the device to come back later."""
        if self._protocol is not None and not self._is_closing:
            self._protocol.go_away(reconnect_ms, "the server is about to stop")
            self._reason = CloseReason.DRAIN
            self._flush()

    def close(self) -> None:
        """Send what is queued, then close as §15 says."""
        if self._transport is not None and not self._is_closing:
            self._flush()
            self._shut_down()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._is_closing = True
            self._transport.abort()

    # Within.

    @property
    def _protocol(self) -> ServerConnection | None:
        return None if self.session is None else self.session.connection

    def _begin(self, peer: Endpoint | None) -> None:
        self.session = self._host.connected(self, peer)
        self.changed()

    def _take_preface(self, data: bytes) -> None:
        preface = (self._preface or b"") + data
        try:
            header = parse(preface)
        except ProxyInvalid:
            self._reason = CloseReason.PROXY_INVALID
            self.abort()
            return
        if isinstance(header, NeedMore):
            self._preface = preface
            return
        self._preface = None
        self._begin(header.source)
        rest = preface[header.size_bytes :]
        while rest and self._protocol is not None and not self._is_closing:
            buffer = self._protocol.get_buffer()
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            rest = rest[count:]
            self.buffer_updated(count)

    def _handle(self, events: list[ServerEvent]) -> None:
        session, protocol = self.session, self._protocol
        if session is None or protocol is None:
            return
        while events:
            was_held = protocol.is_held
            for event in events:
                if isinstance(event, ChunksReceived) and event.lease is None:
                    session.handle(replace(event, lease=self._pool.charge(event.end - event.start)))
                else:
                    session.handle(event)
            events = protocol.take_events()
            if was_held and not protocol.is_held and not events:
                events = protocol.resume(self._host.now())
        self._settle()

    def _settle(self) -> None:
        """Send what is queued, and read on if there is room for it."""
        protocol = self._protocol
        if protocol is None or self.session is None:
            return
        self._flush()
        if protocol.state is ConnectionState.CLOSING:
            self._reason = CloseReason.ERROR
            self._shut_down()
        elif self._is_eof and self.session.is_quiet:
            self.close()
        elif (protocol.is_starved or self._pool.is_full) and not self._is_waiting:
            self._is_waiting = True
            self._pool.when_free(self._memory_is_free)
        self._pause(protocol.is_held or self._is_waiting or self._stalled_s is not None)

    def _flush(self) -> None:
        if self._protocol is not None and self._transport is not None:
            data = self._protocol.data_to_send()
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

    def _memory_is_free(self) -> None:
        self._is_waiting = False
        if self._protocol is not None and self._transport is not None and not self._is_closing:
            self._handle(self._protocol.resume(self._host.now()))

    def _shut_down(self) -> None:
        """End the sending side and read on for a while: closing with unread input would reset the connection."""
        if self._is_closing or self._transport is None:
            return
        self._is_closing = True
        self._pause(False)
        if self._is_eof or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._last_words = asyncio.get_running_loop().call_later(LAST_WORDS_DISCARD_S, self.abort)

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > LAST_WORDS_DISCARD_BYTES:
            self.abort()
