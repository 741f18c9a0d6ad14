"""The composition root: builds and runs the core, the TCP listener, the control plane and the admin socket."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from socket import socket
from typing import Protocol, TypeAlias

from control.app import Options, make_app
from control.connections import ConnectionLimits
from control.download import Delivery, DownloadLimits
from control.listener import ListenAddress
from control.listener import serve as serve_control
from daemon.adapters import descriptors
from daemon.adapters.clock import RunningClock
from daemon.adapters.exits import abandon
from daemon.adapters.sockets import socket_state
from daemon.admin.commands import Commands
from daemon.admin.unix_socket import AdminServer
from daemon.control_ports import control_ports
from daemon.core import Core, open_core, system_machine
from daemon.identity.keys import KeysInvalid
from daemon.policies import descriptor_budget
from daemon.process.descriptors import Budget
from daemon.process.lifecycle import Lifecycle
from daemon.process.pulse import Pulse
from daemon.process.reload import take_over
from daemon.process.systemd import listen_fds, passed_sockets
from daemon.settings import Settings, SettingsInvalid
from daemon.tasks import background
from daemon.tcp.acceptor import bind, keep_alive
from daemon.tcp.listener import DeviceServer
from daemon.tcp.policies import drain_policy, load_certificate, server_policy, tls_context, within
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.session import Services
from daemon.telemetry.exposition import Exposition, Gauges
from daemon.telemetry.logs import Logs

HTTP_DRAIN_SHARE = 0.25
"""Part of the drain's limit for requests under way, once the devices are gone. The devices have the rest."""

ABANDON_S = 5.0
"""Added to the drain's limit, for the last commit cycle and for closing the catalog."""


class HttpServer(Protocol):
    """A listening control plane."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]: ...

    async def close(self) -> None: ...


ListenHttp: TypeAlias = Callable[[Core, Exposition, Sequence[socket], Budget], Awaitable[HttpServer]]
"""Starts the control plane on sockets that systemd passed or, if there are none, where the settings say."""


async def listen_http(core: Core, exposition: Exposition, passed: Sequence[socket], budget: Budget) -> HttpServer:
    """Start the control plane on the core, with as many connections as the descriptors allow. Raises OSError."""
    settings = core.settings
    http = settings.http
    accel_prefix = http.accel_prefix if http.content_delivery == "accel" else None
    delivery = Delivery(accel_prefix, DownloadLimits(streams_max=http.download_concurrency))
    options = Options(http.metrics_public, delivery)
    application = make_app(control_ports(core, exposition), options)
    listeners: list[ListenAddress | socket] = [*passed]
    if not listeners:
        listeners.append(ListenAddress(http.host, http.port))
    limits = ConnectionLimits(
        connections_max=min(http.connections_max, budget.http_connections_max),
        connections_per_ip_max=http.connections_per_ip_max,
        rate_min_bytes_per_s=http.rate_min_bytes_per_s,
        rate_window_s=http.rate_window_s,
    )
    drain_s = settings.drain.timeout_s * HTTP_DRAIN_SHARE
    return await serve_control(
        application, listeners, drain_timeout_s=drain_s, limits=limits, socket_state=socket_state
    )


@dataclass(frozen=True, slots=True)
class Daemon:
    """The parts of a running daemon. `tls` is None for plain TCP; `descriptors_max` is the process's limit."""

    core: Core
    server: DeviceServer
    pool: ReceivePool
    tls: ssl.SSLContext | None
    load: Callable[[], Settings]
    logs: Logs
    descriptors_max: int

    def reload(self) -> str:
        """Load the settings again and apply those that can change now. Returns the outcome in words."""
        core = self.core
        try:
            takeover = take_over(core.settings, self.load(), has_tls=self.tls is not None)
            new = takeover.settings
            # Try the pair first: a mismatched pair would leave the listening context without its key.
            tls_context(new)
            core.reload(new)
            certificate, key = new.listen.tls_certificate, new.listen.tls_key
            if self.tls is not None and certificate is not None and key is not None:
                # Load them even if the paths are the same: certificates are renewed in place.
                load_certificate(self.tls, certificate, key)
        except (SettingsInvalid, KeysInvalid, OSError) as error:
            core.log.warning("reload failed", error=str(error))
            return f"nothing changed: {error}"
        self.server.policy = within(server_policy(new), descriptor_budget(new, self.descriptors_max))
        self.logs.set_level(new.log.level)
        return str(takeover)

    def gauges(self) -> Gauges:
        """The current state, for the metrics."""
        core, pool = self.core, self.pool
        core.metrics.receive_pool_waits = pool.waits
        core.metrics.receive_pool_reclaims = pool.reclaims
        return Gauges(
            connections=self.server.phases(),
            uploads={state.value: count for state, count in core.counts.items()},
            pending_bytes=core.committer.pending_bytes,
            receive_pool_lent_bytes=pool.lent_bytes,
            disk_free_bytes=core.disk.free_bytes,
            disk_size_bytes=core.disk.total_bytes,
            uploads_doubtful=core.recovery.report.doubtful,
        )

    async def drain(self) -> None:
        """Send GOAWAY to the devices, and commit what they sent."""
        self.core.log.info("draining", connections=sum(self.server.phases().values()))
        await self.server.drain(drain_policy(self.core.settings, 1 - HTTP_DRAIN_SHARE))
        await self.core.committer.drained()


async def serve(
    settings: Settings,
    load: Callable[[], Settings],
    environment: Mapping[str, str],
    pid: int,
    logs: Logs,
    listen_http: ListenHttp = listen_http,
) -> int:
    """Run the daemon until a signal stops it, and return the exit status. A reload calls `load` for the new settings.

    Raises DirectoryLocked, CatalogNewer, CatalogFailed, KeysInvalid and OSError (which ssl.SSLError is).
    """
    machine = system_machine()
    log = logs.logger()
    tls = tls_context(settings)
    passed = listen_fds(environment, pid)
    budget = descriptor_budget(settings, descriptors.raise_limit())
    if budget.is_short:
        log.warning("too few file descriptors", descriptors=str(budget))
    async with open_core(settings, machine, log, budget.open_files) as core:
        pool = ReceivePool(settings.limits.receive_pool_bytes, settings.limits.chunk_bytes_max)
        server = DeviceServer(_services(core), pool, within(server_policy(settings), budget))
        daemon = Daemon(core, server, pool, tls, load, logs, budget.limit)
        pulse = Pulse(asyncio.get_running_loop(), machine.clock, core.metrics.loop_paused)
        lifecycle = Lifecycle(environment, pid, machine.clock, pulse, core.health.commit_stuck_s, log)
        lifecycle.catch_signals()
        async with background(core.run(), server.run()), AsyncExitStack() as stack:
            exposition = Exposition(core.metrics, daemon.gauges, version("uplinkd"))
            control = await listen_http(core, exposition, passed_sockets(passed, "http"), budget)
            stack.push_async_callback(control.close)
            commands = Commands(
                core, core.file_verifier, machine.clock, machine.entropy, server.cut, version("uplinkd")
            )
            admin = AdminServer(settings.admin_socket_path, commands, log)
            await admin.start()
            stack.push_async_callback(admin.close)
            listen = settings.listen
            sockets = passed_sockets(passed, "devices") or bind(listen.host, listen.port, listen.backlog)
            for each in sockets:
                keep_alive(each, listen.tcp_keepalive_s, listen.tcp_user_timeout_s)
            await server.listen(sockets, tls, listen.backlog)
            pulse.start()
            stack.callback(pulse.stop)
            devices, http = (", ".join(f"{host}:{port}" for host, port in each.addresses) for each in (server, control))
            log.info(
                "ready", listen=devices, http=http, version=version("uplinkd"), durability=settings.commit.durability
            )
            await lifecycle.serve(f"devices on {devices}; HTTP on {http}", daemon.reload)
            # A disk that hangs must not keep the process alive: acknowledged bytes are already durable.
            limit_s = core.settings.drain.timeout_s + ABANDON_S
            loop = asyncio.get_running_loop()
            last_resort = loop.call_later(limit_s, abandon, f"it did not stop within {limit_s:g} s")
            await daemon.drain()
    last_resort.cancel()
    log.info("stopped")
    return 0


def _services(core: Core) -> Services:
    return Services(
        uploads=core.uploads,
        catalog=core.catalog,
        gate=core.gate,
        # Limits must not judge devices by a time in which nobody could read what they sent.
        clock=RunningClock(core.machine.clock),
        entropy=core.machine.entropy,
        metrics=core.metrics,
        log=core.log,
        tasks=core.tasks,
    )
