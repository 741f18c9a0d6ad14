"""Signals, and the messages that systemd gets through a real socket."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from daemon.process.lifecycle import Lifecycle
from daemon.process.pulse import Pulse
from tests.support.fake_machine import CapturedLog, FakeClock
from tests.support.waiting import until


@dataclass(slots=True)
class Systemd:
    """A fake systemd: the messages it got, and the state that the daemon reports."""

    listener: socket.socket
    clock: FakeClock = field(default_factory=FakeClock)
    log: CapturedLog = field(default_factory=CapturedLog)
    stuck_s: float = 0.0
    heard: list[str] = field(default_factory=list)
    reloads: int = 0

    def hear(self) -> list[str]:
        """The first line of every message so far."""
        while True:
            try:
                self.heard.append(self.listener.recv(4096).decode())
            except BlockingIOError:
                return [each.partition("\n")[0] for each in self.heard]

    def reload(self) -> str:
        self.reloads += 1
        return f"changed: {self.reloads}"


@asynccontextmanager
async def living(systemd: Systemd, environment: dict[str, str], beat_s: float = 0.001) -> AsyncIterator[Lifecycle]:
    """A daemon that serves until a signal; the end of the block sends SIGTERM."""
    loop = asyncio.get_running_loop()
    pulse = Pulse(loop, systemd.clock, lambda _: None, beat_s)
    lifecycle = Lifecycle(environment, os.getpid(), systemd.clock, pulse, lambda: systemd.stuck_s, systemd.log.logger)
    lifecycle.catch_signals()
    pulse.start()
    serving = asyncio.create_task(lifecycle.serve("devices on port 1", systemd.reload))
    try:
        yield lifecycle
        signal.raise_signal(signal.SIGTERM)
        await serving
    finally:
        serving.cancel()
        pulse.stop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield Systemd(listener)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify")}


class TestServe:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_it_is_ready_until_a_signal_and_then_stopping(
        self, systemd: Systemd, environment: dict[str, str], number: signal.Signals
    ) -> None:
        async with living(systemd, environment):
            await until(lambda: systemd.hear() == ["READY=1"])
            signal.raise_signal(number)
            await until(lambda: systemd.hear() == ["READY=1", "STOPPING=1"])
        assert systemd.heard == ["READY=1\nSTATUS=devices on port 1", "STOPPING=1\nSTATUS=draining"]

    async def test_a_reload_is_announced_carried_out_and_reported(
        self, systemd: Systemd, environment: dict[str, str]
    ) -> None:
        async with living(systemd, environment):
            signal.raise_signal(signal.SIGHUP)
            await until(lambda: systemd.hear() == ["READY=1", "RELOADING=1", "READY=1"])
            signal.raise_signal(signal.SIGHUP)
            await until(lambda: systemd.hear()[3:] == ["RELOADING=1", "READY=1"])
        assert systemd.heard[1] == f"RELOADING=1\nMONOTONIC_USEC={int(systemd.clock.monotonic_s() * 1_000_000)}"
        outcomes = [line["outcome"] for line in systemd.log.lines if line["event"] == "settings reloaded"]
        assert outcomes == ["changed: 1", "changed: 2"]

    async def test_it_also_serves_without_systemd(self, systemd: Systemd) -> None:
        async with living(systemd, {}):
            signal.raise_signal(signal.SIGHUP)
            await until(lambda: systemd.reloads)
        assert systemd.hear() == []
        assert systemd.log.at("warning") == []

    async def test_an_unreachable_systemd_is_reported(self, systemd: Systemd, tmp_path: Path) -> None:
        async with living(systemd, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
            await until(lambda: systemd.log.at("warning"))
        assert systemd.log.at("warning") == ["systemd was not notified"] * 2


class TestWatchdog:
    async def test_notified_while_the_loop_is_alive(self, systemd: Systemd, environment: dict[str, str]) -> None:
        async with living(systemd, environment | {"WATCHDOG_USEC": "2000"}):
            await until(lambda: systemd.hear().count("WATCHDOG=1") >= 3)

    async def test_not_notified_while_a_commit_is_stuck(self, systemd: Systemd, environment: dict[str, str]) -> None:
        systemd.stuck_s = 31.4
        async with living(systemd, environment | {"WATCHDOG_USEC": "2000"}):
            await until(lambda: systemd.log.at("error"))
            assert "WATCHDOG=1" not in systemd.hear()
            assert systemd.log.lines[-1]["stuck_s"] == 31
            systemd.stuck_s = 0.0
            await until(lambda: "WATCHDOG=1" in systemd.hear())

    async def test_not_notified_when_the_pulse_has_stopped(self, systemd: Systemd, environment: dict[str, str]) -> None:
        # The pulse is due in an hour, so it never beats within the test: only the first check counts as a beat.
        async with living(systemd, environment | {"WATCHDOG_USEC": "2000"}, beat_s=3600):
            await until(lambda: "WATCHDOG=1" in systemd.hear())
            for _ in range(3):
                await asyncio.sleep(0.002)
            assert systemd.hear().count("WATCHDOG=1") == 1
