"""The whole daemon, in this process: started, reloaded and drained."""

import asyncio
import io
import json
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from daemon import app
from daemon.admin.commands import Commands
from daemon.core import Core, DirectoryLocked
from daemon.identity.tokens import Kind
from daemon.process.descriptors import Budget
from daemon.settings import Settings, load
from daemon.telemetry.exposition import Exposition
from daemon.telemetry.logs import Logs, configure
from protocol import frames
from protocol.constants import Durability
from tests.support.certificates import Certificate, make_certificate
from tests.support.deadlines import DEADLINE_S
from tests.support.raw_device import Wire, token_hello
from tests.support.waiting import until

NOW_MS = 1_800_000_000_000


@dataclass
class FakeHttp:
    """Listens nowhere."""

    passed: Sequence[socket.socket] = ()
    core: Core | None = None
    exposition: Exposition | None = None
    is_closed: bool = False

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        return (("127.0.0.1", 1),)

    async def listen(
        self, core: Core, exposition: Exposition, passed: Sequence[socket.socket], _budget: Budget
    ) -> "FakeHttp":
        self.core, self.exposition, self.passed = core, exposition, passed
        return self

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class World:
    """A daemon's settings file and log, and the daemon once it has started."""

    directory: Path
    logs: Logs
    stream: io.StringIO
    http: FakeHttp = field(default_factory=FakeHttp)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.directory / "uplinkd.toml"

    def write(self, text: str = "") -> None:
        """Write `text` to the settings file, with the settings that isolate the test."""
        self.file.write_text(
            f'data_dir = "{self.directory / "data"}"\n{text}' + ("" if "[listen]" in text else "\n[listen]\nport = 0\n")
        )

    def load(self) -> Settings:
        return load(self.file, {}, {})

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def logged(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.lines if line["event"] == event]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = str(self.logged("ready")[0]["listen"]).rpartition(":")
        return host, int(port)

    @property
    def core(self) -> Core:
        assert self.http.core is not None
        return self.http.core

    async def reload(self) -> str:
        """Send SIGHUP and return the outcome."""
        before = len(self.logged("settings reloaded"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: len(self.logged("settings reloaded")) > before)
        return str(self.logged("settings reloaded")[-1]["outcome"])

    async def welcome(self) -> frames.Welcome:
        """The WELCOME that a new device gets."""
        commands = commands_of(self.core)
        token = (await commands.token("cam", Kind.DEVICE, (), 60, None)).token
        async with await Wire.connect(self.address) as wire:
            wire.say(token_hello(token))
            return await wire.hear(frames.Welcome)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    stream = io.StringIO()
    root, own = logging.getLogger(), logging.getLogger("uplinkd")
    levels = root.level, own.level
    logs = configure("info", "json", stream, lambda: NOW_MS)
    world = World(tmp_path, logs, stream)
    world.write()
    yield world
    logs.close()
    root.setLevel(levels[0])
    own.setLevel(levels[1])


@asynccontextmanager
async def started(world: World) -> AsyncIterator[World]:
    """The daemon, ready. The end of the block sends SIGTERM."""
    running = asyncio.create_task(
        app.serve(world.load(), world.load, world.environment, os.getpid(), world.logs, world.http.listen)
    )
    try:
        await until(lambda: running.done() or world.logged("ready"))
        if running.done():
            await running
        yield world
    finally:
        if not running.done():
            os.kill(os.getpid(), signal.SIGTERM)
            assert await running == 0


@pytest.fixture
async def daemon(world: World) -> AsyncIterator[World]:
    async with started(world) as running:
        yield running


class TestLife:
    async def test_it_logs_its_addresses_and_durability(self, world: World) -> None:
        async with started(world):
            (ready,) = world.logged("ready")
            assert (ready["http"], ready["durability"]) == ("127.0.0.1:1", "sync")
            assert (await world.welcome()).durability is Durability.SYNC
        assert [line["event"] for line in world.lines][-2:] == ["draining", "stopped"]
        assert world.http.is_closed

    async def test_connected_devices_get_goaway_with_a_delay(self, world: World) -> None:
        async with started(world), await Wire.connect(world.address) as wire:
            commands = commands_of(world.core)
            wire.say(token_hello((await commands.token("cam", Kind.DEVICE, (), 60, None)).token))
            await wire.hear(frames.Welcome)
            os.kill(os.getpid(), signal.SIGTERM)
            assert 1000 <= (await wire.hear(frames.Goaway)).reconnect_ms <= 30_000
            await wire.ended()

    async def test_gauges_show_the_current_state(self, daemon: World) -> None:
        assert daemon.http.exposition is not None
        async with await Wire.connect(daemon.address) as wire:
            await until(lambda: b'uplinkd_connections{state="handshake"} 1.0' in rendered(daemon))
            wire.hang_up()
            await until(lambda: b'uplinkd_connections{state="handshake"} 0.0' in rendered(daemon))

    async def test_a_port_in_use_is_reported(self, world: World) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            world.write(f"[listen]\nport = {port}\n")
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
                async with started(world):
                    pass
        assert world.http.is_closed

    async def test_a_locked_directory_is_reported(self, daemon: World, tmp_path: Path) -> None:
        with pytest.raises(DirectoryLocked):
            await app.serve(daemon.load(), daemon.load, {}, os.getpid(), daemon.logs, FakeHttp().listen)

    async def test_a_missing_certificate_is_reported(self, world: World) -> None:
        world.write('[listen]\nport = 0\ntls_certificate = "/missing.pem"\ntls_key = "/missing.pem"\n')
        with pytest.raises(OSError, match=r"the certificate /missing\.pem cannot be used with the key /missing\.pem: "):
            async with started(world):
                pass


class TestReload:
    async def test_the_same_settings_change_nothing(self, daemon: World) -> None:
        assert await daemon.reload() == "changed: nothing"

    async def test_new_limits_apply_to_new_connections(self, daemon: World) -> None:
        daemon.write("[limits]\nwindow_bytes = 2097152\nstreams_max = 3\nkeepalive_s = 7\n")
        assert await daemon.reload() == "changed: limits.keepalive_s, limits.streams_max, limits.window_bytes"
        welcome = await daemon.welcome()
        assert (welcome.window_bytes, welcome.streams_max, welcome.keepalive_s) == (2097152, 3, 7)
        assert await daemon.reload() == "changed: nothing"

    async def test_a_new_log_level_is_applied(self, daemon: World) -> None:
        daemon.write('[log]\nlevel = "debug"\n')
        await daemon.reload()
        await daemon.welcome()
        await until(lambda: daemon.logged("device let in"))

    async def test_settings_that_need_a_restart_are_named_but_not_applied(self, daemon: World) -> None:
        daemon.write(
            '[commit]\ndurability = "write"\n[drain]\ntimeout_s = 5\n[cleanup]\nstale_s = 60\n'
            "[limits]\nstreams_max = 3\n"
        )
        expected = "changed: limits.streams_max; after a restart: cleanup.stale_s, commit.durability, drain.timeout_s"
        before = daemon.core.settings
        outcome = await daemon.reload()
        assert sorted_outcome(outcome) == sorted_outcome(expected)
        now = daemon.core.settings
        assert (now.commit, now.drain, now.cleanup) == (before.commit, before.drain, before.cleanup)
        # WELCOME must state the durability in force.
        assert (await daemon.welcome()).durability is Durability.SYNC
        assert sorted_outcome(await daemon.reload()) == sorted_outcome(
            "changed: nothing; after a restart: cleanup.stale_s, commit.durability, drain.timeout_s"
        )

    @pytest.mark.parametrize(
        "text",
        ["[limits]\nstreams_max = 0\n", "[limits", '[auth]\njwks_file = "/missing.json"\n[limits]\nstreams_max = 3\n'],
        ids=["value", "syntax", "keys"],
    )
    async def test_invalid_settings_change_nothing(self, daemon: World, text: str) -> None:
        before = daemon.core.settings
        daemon.write(text)
        assert (await daemon.reload()).startswith("nothing changed: ")
        assert daemon.core.settings is before
        assert (await daemon.welcome()).streams_max == before.limits.streams_max

    async def test_a_reload_does_not_switch_tls_on(self, daemon: World, tmp_path: Path) -> None:
        certificate = made(tmp_path / "tls")
        daemon.write(listening(certificate))
        for _ in range(2):
            assert await daemon.reload() == "changed: nothing; after a restart: listen.tls_certificate, listen.tls_key"


class TestCertificates:
    @pytest.fixture
    async def served(self, world: World, tmp_path: Path) -> AsyncIterator[Certificate]:
        """Start a daemon with a certificate, and yield the certificate."""
        certificate = made(tmp_path / "tls")
        world.write(listening(certificate))
        async with started(world):
            yield certificate

    async def test_a_certificate_renewed_in_place_is_applied(self, world: World, served: Certificate) -> None:
        old = served.path.read_bytes()
        make_certificate(served.path.parent)
        assert await world.reload() == "changed: nothing"
        assert await shown(world) == served.path.read_text() != old.decode()

    @pytest.mark.parametrize("broken", ["key", "certificate", "pair", "missing"])
    async def test_an_invalid_certificate_changes_nothing(
        self, world: World, served: Certificate, tmp_path: Path, broken: str
    ) -> None:
        old = served.path.read_text()
        before = world.core.settings
        other = made(tmp_path / "other")
        match broken:
            case "key":
                served.key_path.write_text("-----BEGIN nothing")
            case "certificate":
                served.path.write_text("-----BEGIN nothing")
            case "pair":
                served.path.write_bytes(other.path.read_bytes())
            case _:
                served.path.unlink()
        world.write(listening(served) + "[limits]\nstreams_max = 3\n")
        assert (await world.reload()).startswith(f"nothing changed: the certificate {served.path} cannot be used with ")
        assert world.core.settings is before
        assert await shown(world) == old

    async def test_a_reload_does_not_switch_tls_off(self, world: World, served: Certificate) -> None:
        world.write()
        assert await world.reload() == "changed: nothing; after a restart: listen.tls_certificate, listen.tls_key"
        assert await shown(world) == served.path.read_text()


def commands_of(core: Core) -> Commands:
    """The operator's commands."""
    return Commands(core, core.file_verifier, core.machine.clock, core.machine.entropy, None, "1.2.3")


def rendered(world: World) -> bytes:
    """The metrics as a scraper reads them."""
    assert world.http.exposition is not None
    return world.http.exposition.render("")[0]


def sorted_outcome(outcome: str) -> list[list[str]]:
    """The keys that an outcome names, sorted."""
    return [sorted(part.partition(": ")[2].split(", ")) for part in outcome.split("; ")]


def made(directory: Path) -> Certificate:
    directory.mkdir()
    return make_certificate(directory)


def listening(certificate: Certificate) -> str:
    return f'[listen]\nport = 0\ntls_certificate = "{certificate.path}"\ntls_key = "{certificate.key_path}"\n'


async def shown(world: World) -> str:
    """The certificate that a new handshake gets, as PEM."""
    host, port = world.address
    return await asyncio.to_thread(lambda: ssl_certificate(host, port))


def ssl_certificate(host: str, port: int) -> str:
    return ssl.get_server_certificate((host, port), timeout=DEADLINE_S)
