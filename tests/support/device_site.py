"""A server for devices on loopback: real sockets and sessions; the test controls time and the results of storing."""

import asyncio
import functools
import inspect
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import ParamSpec, TypeVar

import uvloop

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Device
from daemon.identity.gate import Gate
from daemon.identity.tokens import Identity, Kind, Scope, TokenIssuer, TokenVerifier
from daemon.policies import auth_policy
from daemon.settings import Settings
from daemon.tcp.acceptor import bind
from daemon.tcp.listener import DeviceServer, DrainPolicy, ServerPolicy
from daemon.tcp.places import PlaceLimits
from daemon.tcp.policies import server_policy
from daemon.tcp.proxy_header import SIGNATURE
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.session import Services, Session
from daemon.telemetry.metrics import ConnectionPhase
from protocol import frames
from protocol.handshake import device_key
from tests.support.command_parts import KEY
from tests.support.raw_device import Wire, token_hello
from tests.support.upload_bench import Bench, CountingEntropy, running
from tests.support.waiting import until

Tests = TypeVar("Tests")
Arguments = ParamSpec("Arguments")

SETTINGS = Settings(data_dir=Path("nowhere"))
TENANT, DEVICE = "default", "pump-7"
SECRET = b"s" * 32
LOOPBACK = (ip_network("127.0.0.0/8"),)

PROXY_V2 = SIGNATURE + struct.pack(">BBH4s4sHH", 0x21, 0x11, 12, b"\x0a\0\0\x07", b"\x0a\0\0\x01", 4000, 7710)
"""The header of a proxy that relays for 10.0.0.7."""

DRAIN = DrainPolicy(timeout_s=20, reconnect_ms_min=1000, reconnect_ms_max=30_000)


def device(name: str = DEVICE, disabled_ms: int | None = None) -> Device:
    """An enrolled device with SECRET."""
    return Device(tenant=TENANT, device=name, key=device_key(SECRET), created_ms=0, disabled_ms=disabled_ms)


class FakeDevices:
    """Enrolled and disabled devices; `device` waits for `answers`."""

    def __init__(self, *known: Device) -> None:
        self.known = {(each.tenant, each.device): each for each in known}
        self.off: set[tuple[str, str]] = set()
        self.generations: dict[tuple[str, str], int] = {}
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.failure: Exception | None = None

    async def device(self, tenant: str, device: str) -> Device | None:
        self.asked += 1
        await self.answers.wait()
        if self.failure is not None:
            raise self.failure
        return self.known.get((tenant, device))

    async def disabled(self) -> frozenset[tuple[str, str]]:
        if isinstance(self.failure, CatalogFailed):
            raise self.failure
        return frozenset(self.off)

    async def replaced(self) -> dict[tuple[str, str], int]:
        return dict(self.generations)


@dataclass(slots=True)
class Site:
    """The parts that a server uses."""

    bench: Bench = field(default_factory=lambda: Bench(cycle_s=0.0))
    devices: FakeDevices = field(default_factory=lambda: FakeDevices(device()))
    settings: Settings = SETTINGS

    @property
    def issuer(self) -> TokenIssuer:
        """Makes tokens that the gate accepts."""
        return TokenIssuer(auth_policy(self.settings), KEY)

    def token(
        self,
        device: str = DEVICE,
        ttl_s: float = 3600,
        scope: Scope = Scope.UPLOAD,
        secret_generation: int | None = None,
    ) -> str:
        """A device's token."""
        identity = Identity(TENANT, device, Kind.DEVICE, frozenset({scope}), None, secret_generation)
        return self.issuer.issue(identity, ttl_s, self.bench.clock.wall_ms())

    def gate(self) -> Gate:
        """Accepts the tokens of `issuer`."""
        return Gate(TokenVerifier(auth_policy(self.settings), [KEY]), self.devices, self.bench.clock)

    def services(self) -> Services:
        """The services that sessions share."""
        bench = self.bench
        return Services(
            uploads=bench.uploads,
            catalog=bench.catalog,
            gate=self.gate(),
            clock=bench.clock,
            entropy=CountingEntropy(),
            metrics=bench.metrics,
            log=bench.log.logger,
            tasks=bench.tasks,
        )


@dataclass(slots=True)
class Listening:
    """A site that devices can connect to."""

    site: Site
    services: Services
    server: DeviceServer
    pool: ReceivePool
    tls: ssl.SSLContext | None = None
    wires: list[Wire] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Where devices connect."""
        return self.server.addresses[0]

    @property
    def connections(self) -> int:
        """How many connections the server counts."""
        return sum(self.server.phases().values())

    def phase(self, phase: ConnectionPhase) -> int:
        """How many connections are in this phase."""
        return self.server.phases()[phase]

    async def connect(self, *, local: tuple[str, int] | None = None) -> Wire:
        """A connection before its first frame, but after TLS."""
        wire = await Wire.connect(self.address, tls=self.tls, local=local)
        self.wires.append(wire)
        return wire

    async def admitted(
        self, device: str = DEVICE, ttl_s: float = 3600, *, local: tuple[str, int] | None = None
    ) -> Wire:
        """A connection after WELCOME."""
        wire = await self.connect(local=local)
        wire.say(token_hello(self.site.token(device, ttl_s)))
        await wire.hear(frames.Welcome)
        return wire

    async def pass_s(self, seconds: float) -> None:
        """Let time pass, and let the server check all connections, as it does once a second."""
        self.site.bench.clock.pass_s(seconds)
        await self.server.sweep(0)


def policy_of(
    settings: Settings = SETTINGS,
    *,
    proxied: bool = False,
    connections_max: int = 100,
    connections_per_ip_max: int = 0,
    connections_per_tenant_max: int = 0,
    connections_per_device_max: int = 0,
    handshakes_max: int = 100,
) -> ServerPolicy:
    """The policy from these settings. With `proxied`, devices are behind a proxy on loopback."""
    return replace(
        server_policy(settings),
        proxy_trusted=LOOPBACK if proxied else (),
        places=PlaceLimits(
            connections_max, connections_per_ip_max, connections_per_tenant_max, connections_per_device_max
        ),
        handshakes_max=handshakes_max,
    )


@asynccontextmanager
async def listening(
    policy: ServerPolicy | None = None,
    *,
    site: Site | None = None,
    pool: ReceivePool | None = None,
    tls: Sequence[ssl.SSLContext] = (),
) -> AsyncIterator[Listening]:
    """A server on a free port; `tls` holds the contexts of server and devices. It must end without leftovers."""
    site = site or Site()
    pool = pool or ReceivePool(SETTINGS.limits.receive_pool_bytes, SETTINGS.limits.chunk_bytes_max)
    server_tls, device_tls = tls or (None, None)
    async with running(site.bench):
        services = site.services()
        await services.gate.load()
        server = DeviceServer(services, pool, policy or policy_of())
        await server.listen(bind("127.0.0.1", 0, 16), server_tls)
        listening_site = Listening(site, services, server, pool, device_tls)
        try:
            yield listening_site
        finally:
            for wire in listening_site.wires:
                wire.hang_up()
            await server.drain(replace(DRAIN, timeout_s=0))
            await until(lambda: not server.phases()[ConnectionPhase.DRAINING])
            site.devices.answers.set()
            await site.bench.tasks.wait()
    assert site.bench.failures == []
    assert pool.lent_bytes == 0
    assert pool.copied_bytes == 0


def only(site: Listening) -> Session:
    """The session of the only connection."""
    (connection,) = site.server._connections
    assert connection.session is not None
    return connection.session


def on_uvloop(tests: type[Tests]) -> type[Tests]:
    """Run the tests of a class on the daemon's own event loop."""
    for name, test in list(vars(tests).items()):
        if name.startswith("test_") and inspect.iscoroutinefunction(test):
            setattr(tests, name, _run(test))
    return tests


def _run(test: Callable[Arguments, Coroutine[None, None, None]]) -> Callable[Arguments, None]:
    @functools.wraps(test)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*args, **kwargs))

    return run
