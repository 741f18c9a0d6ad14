"""The daemon as a process: everything started in order, told to systemd, reloaded, and ended in order."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from socket import socket
from typing import Protocol, TypeAlias

from daemon.adapters.clock import SystemClock
from daemon.adapters.exits import abandon
from daemon.admin.commands import Commands
from daemon.admin.unix_socket import AdminServer
from daemon.core import Engine, open_engine, system_machine
from daemon.identity.keys import KeysInvalid
from daemon.policies import drain_policy, load_certificate, server_policy, tls_context
from daemon.process.lifecycle import Lifecycle
from daemon.process.pulse import Pulse
from daemon.process.systemd import listen_fds
from daemon.settings import Settings, SettingsInvalid, changes
from daemon.tasks import background
from daemon.tcp.listener import DeviceServer, bind, keep_alive, passed_sockets
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.session import Services
from daemon.telemetry.exposition import Exposition, Gauges
from daemon.telemetry.logs import Logs, configure
from daemon.upkeep.verify import Verifier

_TLS_KEYS = frozenset({"listen.tls_certificate", "listen.tls_key"})


ABANDON_S = 5.0
"""On top of the drain's limit, for the last commit cycle and for closing the catalog."""


class HttpServer(Protocol):
    """The control plane, listening."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]: ...

    async def close(self) -> None: ...


ListenHttp: TypeAlias = Callable[[Engine, Exposition, Sequence[socket]], Awaitable[HttpServer]]
"""Starts the control plane on sockets that systemd passed or, if there are none, where the settings say."""


async def run(
    settings: Settings,
    load: Callable[[], Settings],
    environment: Mapping[str, str],
    pid: int,
    logs: Logs,
    listen_http: ListenHttp,
) -> int:
    """Run until a signal asks to stop; the exit status. `load` reads the settings anew, for a reload.

    Raises DirectoryLocked, CatalogNewer, CatalogFailed, KeysInvalid and OSError.
    """
    machine = system_machine()
    log = logs.logger()
    tls = _tls_context(settings)
    passed = listen_fds(environment, pid)
    async with open_engine(settings, machine, log) as engine:
        pool = ReceivePool(settings.limits.receive_pool_bytes, settings.limits.chunk_bytes_max)
        server = DeviceServer(_services(engine), pool, server_policy(settings))
        pulse = Pulse(asyncio.get_running_loop(), machine.clock, engine.metrics.loop_paused)
        lifecycle = Lifecycle(environment, pid, machine.clock, pulse, engine.commit_stuck_s, log)
        lifecycle.catch_signals()
        async with background(engine.run(), server.run()), AsyncExitStack() as stack:
            exposition = Exposition(engine.metrics, lambda: _gauges(engine, server, pool), version("uplinkd"))
            control = await listen_http(engine, exposition, passed_sockets(passed, "http"))
            stack.push_async_callback(control.close)
            admin = AdminServer(settings.admin_socket_path, _commands(engine, server.cut), log)
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
            await lifecycle.serve(
                f"devices on {devices}; HTTP on {http}", lambda: _reload(engine, server, tls, load, logs)
            )
            # A disk that does not answer must not keep the process: what was acknowledged is safe already.
            limit_s = engine.settings.drain.timeout_s + ABANDON_S
            loop = asyncio.get_running_loop()
            last_resort = loop.call_later(limit_s, abandon, f"it did not come to an end within {limit_s:g} s")
            log.info("draining", connections=sum(server.phases().values()))
            await server.drain(drain_policy(engine.settings))
            await engine.committer.drained()
    last_resort.cancel()
    log.info("stopped")
    return 0


@asynccontextmanager
async def offline(settings: Settings) -> AsyncIterator[Commands]:
    """The commands on a data directory that no daemon owns, which is made if it is missing.

    Raises DirectoryLocked, CatalogNewer, CatalogFailed, KeysInvalid and OSError.
    """
    logs = configure("warning", "console", sys.stderr, SystemClock().wall_ms)
    try:
        async with open_engine(settings, system_machine(), logs.logger()) as engine:
            yield _commands(engine, None)
    finally:
        logs.close()


def _commands(engine: Engine, cut: Callable[[str, str], object] | None) -> Commands:
    machine = engine.machine
    verifier = Verifier(engine.catalog, engine.storage, machine.threads, machine.clock)
    return Commands(engine, verifier, machine.clock, machine.entropy, cut, version("uplinkd"))


def _services(engine: Engine) -> Services:
    return Services(
        uploads=engine.uploads,
        catalog=engine.catalog,
        gate=engine.gate,
        clock=engine.machine.clock,
        entropy=engine.machine.entropy,
        metrics=engine.metrics,
        log=engine.log,
        tasks=engine.tasks,
    )


def _reload(
    engine: Engine, server: DeviceServer, tls: ssl.SSLContext | None, load: Callable[[], Settings], logs: Logs
) -> str:
    old = engine.settings
    try:
        applied, restart, new = _parted(old, load(), has_tls=tls is not None)
        # Tried out first: a pair that does not fit would leave the listening context without its key.
        _tls_context(new)
        engine.reload(new)
        certificate, key = new.listen.tls_certificate, new.listen.tls_key
        if tls is not None and certificate is not None and key is not None:
            # Read anew even if the paths are the same: that is how certificates are renewed.
            load_certificate(tls, certificate, key)
    except (SettingsInvalid, KeysInvalid, OSError) as error:
        engine.log.warning("reload failed", error=str(error))
        return f"nothing changed: {error}"
    server.policy = server_policy(new)
    logs.set_level(new.log.level)
    waiting = f"; after a restart: {', '.join(restart)}" if restart else ""
    return f"changed: {', '.join(applied) or 'nothing'}{waiting}"


def _parted(old: Settings, found: Settings, *, has_tls: bool) -> tuple[list[str], list[str], Settings]:
    """Keys that change now, keys that wait for a restart, and the settings from now on.

    What waits stays as it was everywhere: a device that is told of another durability than it gets loses data.
    """
    applied, restart = map(list, changes(old, found))
    if has_tls is (found.listen.tls_certificate is None):
        # A listener cannot turn from plain TCP to TLS, or back.
        restart += [key for key in applied if key in _TLS_KEYS]
        applied = [key for key in applied if key not in _TLS_KEYS]
    values: dict[str, dict[str, object]] = {}
    for section, _, name in (key.partition(".") for key in applied):
        values.setdefault(section, {})[name] = getattr(getattr(found, section), name)
    sections = {section: getattr(old, section).model_copy(update=changed) for section, changed in values.items()}
    return applied, restart, old.model_copy(update=sections)


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    """As `tls_context`; an error names the files."""
    try:
        return tls_context(settings)
    except OSError as error:
        listen = settings.listen
        raise OSError(
            f"the certificate {listen.tls_certificate} cannot be used with the key {listen.tls_key}: {error}"
        ) from error


def _gauges(engine: Engine, server: DeviceServer, pool: ReceivePool) -> Gauges:
    engine.metrics.receive_pool_waits = pool.waits
    return Gauges(
        connections=server.phases(),
        uploads={state.value: count for state, count in engine.counts.items()},
        pending_bytes=engine.committer.pending_bytes,
        receive_pool_lent_bytes=pool.lent_bytes,
        disk_free_bytes=engine.disk.free_bytes,
        disk_size_bytes=engine.disk.total_bytes,
        uploads_doubtful=engine.recovery.report.doubtful,
    )
