"""The listeners for devices: who may connect, the timers of all connections, the drain. PROTOCOL.md §11, §15."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network

from daemon.adapters.clock import Clock
from daemon.tcp.handshake import SessionPolicy
from daemon.tcp.proxy_header import PeerAddress
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.session import Services, Session
from daemon.tcp.transport import GOODBYE, DeviceConnection
from daemon.tcp.turns import Turns
from daemon.telemetry.metrics import CloseReason, ConnectionPhase
from protocol.errors import ErrorCode
from protocol.server import ServerConnection, ServerLimits
from protocol.server_output import WAIT_MS

SWEEP_BATCH = 50
"""Connections checked in one go, which takes some hundred microseconds; then other work gets its turn."""

SWEEP_S = 1.0
"""Limits of time are in seconds. A sweep is spread over the whole second, so that input does not wait for it."""

UNKNOWN = ""
"""In place of the address where the socket has none."""

LINGER_S = 1.0
"""How long a device with an open upload is still read after GOAWAY: what it sent before may be under way."""

DRAIN_STEP_S = 0.05
"""How often a drain checks whether connections have become quiet."""


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """What an operator allows. `connections_per_ip_max` 0 sets no limit."""

    limits: ServerLimits
    session: SessionPolicy
    connections_max: int
    connections_per_ip_max: int
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
        self._connections: dict[DeviceConnection, str | None] = {}
        self._by_address: Counter[str] = Counter()
        self._refused: set[DeviceConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._draining: DrainPolicy | None = None

    async def listen(
        self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None, backlog: int = socket.SOMAXCONN
    ) -> None:
        """Accept connections on bound sockets, which the server owns from now on. Raises OSError."""
        loop = asyncio.get_running_loop()
        # A PROXY header comes before TLS, so the connection itself begins TLS behind it.
        inner, outer = (tls, None) if self.policy.proxy_trusted else (None, tls)
        for each in sockets:
            self._servers.append(
                await loop.create_server(
                    partial(self._made, inner),
                    sock=each,
                    backlog=backlog,
                    ssl=outer,
                    ssl_handshake_timeout=self.policy.handshake_timeout_s if outer else None,
                )
            )

    def stop_listening(self) -> None:
        """Accept no more connections."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def run(self) -> None:
        """Check the limits of time of every connection once a second, until cancelled."""
        while True:
            await self.sweep(SWEEP_S)

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
        while (left := [*self._connections, *self._refused]) and self.clock.monotonic_s() < deadline:
            for connection in left:
                session = connection.session
                lingers = self.clock.monotonic_s() < started_s + LINGER_S
                if session is None or (session.is_quiet and not (session.has_uploads and lingers)):
                    connection.close()
            await asyncio.sleep(DRAIN_STEP_S)
        for connection in left:
            connection.abort()

    def cut(self, tenant: str, device: str) -> int:
        """Check the connections of a device that was disabled at once; how many it has."""
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
        for connection in self._connections:
            if self._draining is not None:
                counts[ConnectionPhase.DRAINING] += 1
            elif connection.session is None or connection.session.admitted is None:
                counts[ConnectionPhase.HANDSHAKE] += 1
            else:
                counts[ConnectionPhase.OPEN] += 1
        return counts

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every listener."""
        names = [each.getsockname() for server in self._servers for each in server.sockets]
        return [(name[0], name[1]) for name in names]

    # What connections call.

    @property
    def clock(self) -> Clock:
        return self._services.clock

    def accepted(self, connection: DeviceConnection) -> None:
        self._services.metrics.connections_accepted += 1
        self._connections[connection] = None

    def connected(self, connection: DeviceConnection, peer: PeerAddress | None) -> Session:
        policy = self.policy
        address = UNKNOWN if peer is None else str(peer.address)
        self._connections[connection] = address
        self._by_address[address] += 1
        protocol = ServerConnection(policy.limits, self._pool, self.clock.monotonic_s())
        name = f"{address}:{peer.port}" if peer else ""
        session = Session(protocol, connection, self._services, policy.session, name)
        if refusal := self._refusal(address):
            # While it reads why, it takes no place: a crowd of refused connections would keep the server full.
            self._leave(connection)
            self._refused.add(connection)
            protocol.fail(*refusal)
            if len(self._refused) > policy.connections_max:
                connection.abort()
        return session

    def _refusal(self, address: str) -> tuple[ErrorCode, str, int] | None:
        """Why the latest connection, from `address`, is refused, and for how many ms to stay away. None to serve it."""
        policy = self.policy
        if self._draining is not None:
            return ErrorCode.SHUTTING_DOWN, GOODBYE, self._reconnect_ms(self._draining)
        crowded = policy.connections_per_ip_max and self._by_address[address] > policy.connections_per_ip_max
        if not crowded and len(self._connections) <= policy.connections_max:
            return None
        who = f"address {address}" if crowded else "the server"
        wait_ms = int(self._services.entropy.uniform(WAIT_MS, 2 * WAIT_MS))
        return ErrorCode.TOO_MANY_CONNECTIONS, f"{who} has as many connections as it may", wait_ms

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
        self._leave(connection)
        self._services.metrics.connections_closed[reason] += 1

    def trusts(self, peer: PeerAddress) -> bool:
        return any(peer.address in network for network in self.policy.proxy_trusted)

    def _made(self, tls: ssl.SSLContext | None) -> DeviceConnection:
        return DeviceConnection(self, self._pool, bool(self.policy.proxy_trusted), tls)

    def _leave(self, connection: DeviceConnection) -> None:
        self._refused.discard(connection)
        address = self._connections.pop(connection, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


def bind(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`. Raises OSError that names the address."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    for family, kind, _, _, address in dict.fromkeys(found):
        each = socket.socket(family, kind)
        sockets.append(each)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            each.bind(address)
            each.listen(backlog)
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sockets


def keep_alive(listener: socket.socket, keepalive_s: float, user_timeout_s: float) -> None:
    """Set what accepted connections inherit: TCP probes, and how long data may stay unacknowledged. 0 turns it off."""
    if keepalive_s:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(int(keepalive_s), 1))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(int(keepalive_s / 3), 1))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    if user_timeout_s:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_s * 1000))
