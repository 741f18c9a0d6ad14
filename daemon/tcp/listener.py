"""The server for devices: who may connect, the timers of all connections, the drain. PROTOCOL.md §11, §15."""

import asyncio
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from socket import SOMAXCONN, socket

from daemon.adapters.clock import Clock
from daemon.tcp.acceptor import Acceptor, SockAddress, attach, hang_up
from daemon.tcp.half_open import HalfOpen
from daemon.tcp.handshake import SessionPolicy
from daemon.tcp.opening import Opening, peer_of
from daemon.tcp.places import Place, PlaceLimits, Places
from daemon.tcp.proxy_header import PeerAddress
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.session import Services, Session
from daemon.tcp.sources import source_of
from daemon.tcp.stream import TurnedAway
from daemon.tcp.transport import GOODBYE, DeviceConnection
from daemon.tcp.turns import Turns
from daemon.telemetry.metrics import CloseReason, ConnectionLimit, ConnectionPhase
from protocol.errors import ErrorCode
from protocol.server import ServerConnection, ServerLimits
from protocol.server_output import WAIT_MS

SWEEP_BATCH = 50
"""Connections checked in one go, which takes some hundred microseconds; then other work gets its turn."""

SWEEP_S = 1.0
"""Limits of time are in seconds. A sweep is spread over the whole second, so that input does not wait for it."""

LINGER_S = 1.0
"""How long a device with an open upload is still read after GOAWAY: what it sent before may be under way."""

DRAIN_STEP_S = 0.05
"""How often a drain checks whether connections have become quiet."""


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """What an operator allows. `handshakes_max` is for connections that are not admitted yet, apart from `places`."""

    limits: ServerLimits
    session: SessionPolicy
    places: PlaceLimits
    handshakes_max: int
    outgoing_bytes_max: int
    handshake_timeout_s: float
    proxy_trusted: tuple[IPv4Network | IPv6Network, ...]
    """Networks whose PROXY header is believed; empty where none is expected."""


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    """How long a drain may take, and when devices are asked to come back."""

    timeout_s: float
    reconnect_ms_min: int
    reconnect_ms_max: int


class DeviceServer:
    """All connections of devices. `policy` may change at any time, for the connections made from then on."""

    def __init__(self, services: Services, pool: ReceivePool, policy: ServerPolicy) -> None:
        self._services = services
        self._pool = pool
        self.policy = policy
        self.turns = Turns()
        self._connections: dict[DeviceConnection, Place | None] = {}
        self._half_open: HalfOpen[DeviceConnection] = HalfOpen()
        self._places = Places()
        self._evicted = 0
        self._acceptor = Acceptor(self._short)
        self._draining: DrainPolicy | None = None

    async def listen(self, sockets: Sequence[socket], tls: ssl.SSLContext | None, backlog: int = SOMAXCONN) -> None:
        """Accept connections on bound sockets, which the server owns from now on. Raises OSError."""
        for each in sockets:
            self._acceptor.listen(each, backlog, partial(self._accepted, tls))

    def stop_listening(self) -> None:
        """Accept no more connections."""
        self._acceptor.close()

    async def run(self) -> None:
        """Check the limits of time of every connection once a second, until cancelled."""
        while True:
            await self.sweep(SWEEP_S)
            self._report_evictions()

    async def sweep(self, duration_s: float) -> None:
        """Check the limits of time of all present connections, spread over `duration_s`."""
        connections = list(self._connections)
        starts = range(0, max(len(connections), 1), SWEEP_BATCH)
        for start in starts:
            now = self.clock.monotonic_s()
            for connection in connections[start : start + SWEEP_BATCH]:
                connection.check_time(now)
            await asyncio.sleep(duration_s / len(starts))

    async def drain(self, policy: DrainPolicy) -> None:
        """Ask all devices to come back later, send the last acknowledgements, and close, within the policy's limit."""
        self._draining = policy
        self.stop_listening()
        for connection in list(self._connections):
            connection.go_away(self._reconnect_ms(policy))
        started_s = self.clock.monotonic_s()
        deadline = started_s + policy.timeout_s
        while (left := list(self._connections)) and self.clock.monotonic_s() < deadline:
            for connection in left:
                session = connection.session
                lingers = self.clock.monotonic_s() < started_s + LINGER_S
                if session is None or (session.is_quiet and not (session.has_uploads and lingers)):
                    connection.close()
            await asyncio.sleep(DRAIN_STEP_S)
        for connection in left:
            connection.abort()

    def cut(self, tenant: str, device: str) -> int:
        """Check the connections of a device whose rights were changed at once; how many it has."""
        theirs = [
            connection
            for connection in self._connections
            if connection.session is not None
            and (admitted := connection.session.admitted) is not None
            and (admitted.tenant, admitted.device) == (tenant, device)
        ]
        for connection in theirs:
            connection.check_time(self.clock.monotonic_s())
        return len(theirs)

    def phases(self) -> dict[ConnectionPhase, int]:
        """How many connections there are in each phase."""
        counts = dict.fromkeys(ConnectionPhase, 0)
        for connection, place in self._connections.items():
            if self._draining is not None:
                phase = ConnectionPhase.DRAINING
            else:
                phase = connection.phase if place is None else ConnectionPhase.OPEN
            counts[phase] += 1
        return counts

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every listener."""
        return self._acceptor.addresses

    # What connections call.

    @property
    def clock(self) -> Clock:
        return self._services.clock

    def identified(self, connection: DeviceConnection, opening: Opening) -> None:
        self._half_open.discard(connection)
        self._enter(connection, source_of(opening.peer), self.policy.places.connections_per_ip_max)

    def opened(self, connection: DeviceConnection, opening: Opening) -> Session:
        policy, peer = self.policy, opening.peer
        # The handshake's time began with the link.
        protocol = ServerConnection(policy.limits, self._pool, opening.began_s, self._wait_ms)
        session = Session(protocol, connection, self._services, policy.session, f"{peer.address}:{peer.port}")
        if self._draining is not None:
            protocol.fail(ErrorCode.SHUTTING_DOWN, GOODBYE, self._reconnect_ms(self._draining))
        return session

    def admit(self, connection: DeviceConnection, tenant: str, device: str) -> TurnedAway | None:
        source = self._half_open.source(connection)
        if source is None:  # it was evicted while its proof was checked, and hears no answer
            return TurnedAway(ErrorCode.TOO_MANY_CONNECTIONS, "it made room for a newer connection")
        limit = self._places.take(source, tenant, device, self.policy.places)
        if isinstance(limit, Place):
            self._connections[connection] = limit
            self._half_open.discard(connection)
            return None
        self._services.metrics.connections_refused[limit] += 1
        who = {
            ConnectionLimit.SERVER: "the server",
            ConnectionLimit.ADDRESS: f"address {source}",
            ConnectionLimit.TENANT: f"tenant {tenant}",
            ConnectionLimit.DEVICE: f"device {device}",
        }[limit]
        return TurnedAway(ErrorCode.TOO_MANY_CONNECTIONS, f"{who} has as many connections as it may")

    def _wait_ms(self) -> int:
        return int(self._services.entropy.uniform(WAIT_MS, 2 * WAIT_MS))

    def _reconnect_ms(self, policy: DrainPolicy) -> int:
        return int(self._services.entropy.uniform(policy.reconnect_ms_min, policy.reconnect_ms_max))

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        self._services.tasks.spawn(work)

    @property
    def handshake_timeout_s(self) -> float:
        return self.policy.handshake_timeout_s

    @property
    def outgoing_bytes_max(self) -> int:
        return self.policy.outgoing_bytes_max

    def disconnected(self, connection: DeviceConnection, reason: CloseReason) -> None:
        place = self._connections.pop(connection)
        self._half_open.discard(connection)
        if place is not None:
            self._places.leave(place)
        self._services.metrics.connections_closed[reason] += 1

    # The door.

    def _accepted(self, tls: ssl.SSLContext | None, link: socket, address: SockAddress) -> None:
        metrics, policy, peer = self._services.metrics, self.policy, peer_of(address)
        is_proxied = bool(policy.proxy_trusted)
        metrics.connections_accepted += 1
        if is_proxied and not self._trusts(peer):
            metrics.connections_closed[CloseReason.PROXY_INVALID] += 1
            link.close()
            return
        opening = Opening(
            peer,
            is_proxied=is_proxied,
            tls=tls,
            timeout_s=policy.handshake_timeout_s,
            now=self.clock.monotonic_s(),
            hang_up=partial(hang_up, link),
        )
        connection = DeviceConnection(self, self._pool, opening)
        self._connections[connection] = None
        # A proxy's links are many, and all of one address until the header has come.
        self._enter(connection, source_of(peer), 0 if is_proxied else policy.places.connections_per_ip_max)
        self.spawn(self._attach(link, connection, None if is_proxied else tls))

    async def _attach(self, link: socket, connection: DeviceConnection, tls: ssl.SSLContext | None) -> None:
        try:
            await attach(link, connection, tls, self.policy.handshake_timeout_s)
        except OSError as error:
            connection.failed(error)

    def _enter(self, connection: DeviceConnection, source: str, per_source_max: int) -> None:
        """Let the connection prove itself. Where there is no room, the oldest of the greediest source makes it."""
        half_open = self._half_open
        if 0 < per_source_max <= half_open.count(source):
            self._evict(half_open.oldest(source))
        elif 0 < len(half_open) >= self.policy.handshakes_max:
            self._evict(half_open.oldest(half_open.fullest))
        half_open.add(connection, source)

    def _evict(self, connection: DeviceConnection) -> None:
        self._half_open.discard(connection)
        self._evicted += 1
        connection.drop(CloseReason.EVICTED)

    def _report_evictions(self) -> None:
        """One line about all that were evicted since the last one: a line each would be a flood of its own."""
        if self._evicted:
            fullest = self._half_open.fullest if self._half_open else None
            self._services.log.warning(
                "connections that were not admitted made room for newer ones",
                count=self._evicted,
                waiting=len(self._half_open),
                most_from=fullest,
            )
            self._evicted = 0

    def _short(self, error: OSError, pause_s: float) -> None:
        self._services.metrics.accept_failures += 1
        self._services.log.warning(
            "no connection can be accepted for now: raise LimitNOFILE, or lower limits.connections_max",
            error=error.strerror,
            pause_s=pause_s,
            connections=len(self._connections),
        )

    def _trusts(self, peer: PeerAddress) -> bool:
        return any(peer.address in network for network in self.policy.proxy_trusted)
