"""The running daemon carries a command out; without one, it works on the locked data directory."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest

from daemon.admin import unix_socket
from daemon.admin.commands import Commands
from daemon.admin.messages import AddDevice, AskStatus, Clean, ListDevices, Request, Result, SwitchDevice, Verify
from daemon.admin.results import CommandFailed, DaemonStatus, DeviceAdded, DeviceListed
from daemon.admin.unix_socket import AdminServer, DaemonSilent
from daemon.catalog.interface import CatalogNewer
from daemon.cli.dispatch import Offline, offline, operate
from daemon.core import DirectoryLocked
from daemon.identity.keys import KeysInvalid
from daemon.sections import Auth
from daemon.settings import Settings
from protocol.errors import ErrorCode
from tests.support.command_parts import Parts, parts_in
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_machine import CapturedLog, FakeClock

OWNER = os.geteuid()
"""The owner of the tests' directories."""

ADD = AddDevice(tenant=None, device="pump-7")


def settings_in(path: Path) -> Settings:
    return Settings(data_dir=path)


def is_used(path: Path) -> bool:
    return any(path.iterdir())


def refused_offline(settings: Settings) -> AbstractAsyncContextManager[Commands]:
    raise AssertionError(f"{settings.data_dir} was opened though a daemon runs")


def failing(error: Exception) -> Offline:
    @asynccontextmanager
    async def offline(_: Settings) -> AsyncIterator[Commands]:
        raise error
        yield

    return offline


async def results(
    path: Path, request: Request, how: Offline = offline, uid: int = OWNER, patience_s: float = 0
) -> list[Result]:
    operating = operate(settings_in(path), request, how, uid, FakeClock(), patience_s)
    async with asyncio.timeout(DEADLINE_S):
        return [each async for each in operating]


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts_in(tmp_path) as made:
        yield made


class TestWithADaemon:
    async def test_the_daemon_does_the_work(self, tmp_path: Path, parts: Parts) -> None:
        server = AdminServer(settings_in(tmp_path).admin_socket_path, parts.commands(), CapturedLog().logger)
        await server.start()
        (status,) = await results(tmp_path, AskStatus(), refused_offline)
        assert isinstance(status, DaemonStatus) and status.is_running
        with pytest.raises(CommandFailed, match="not a valid device name"):
            await results(tmp_path, AddDevice(tenant=None, device="/"), refused_offline)
        await server.close()

    async def test_a_daemon_that_hangs_is_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unix_socket, "GREETING_TIMEOUT_S", 0.01)
        with closing(unix_socket._bind(tmp_path / "admin.sock")), pytest.raises(DaemonSilent):
            await results(tmp_path, AskStatus(), refused_offline)


class TestWithoutADaemon:
    async def test_devices_are_enrolled_and_listed(self, tmp_path: Path) -> None:
        (added,) = await results(tmp_path, ADD)
        assert isinstance(added, DeviceAdded)
        (listed,) = await results(tmp_path, ListDevices(tenant=None))
        assert isinstance(listed, DeviceListed) and listed.is_enrolled
        assert await results(tmp_path, SwitchDevice(tenant=None, device="pump-7", disable=True))

    async def test_status_says_that_no_daemon_runs(self, tmp_path: Path) -> None:
        (status,) = await results(tmp_path, AskStatus())
        assert isinstance(status, DaemonStatus) and not status.is_running

    async def test_a_device_can_be_enrolled_before_the_first_start(self, tmp_path: Path) -> None:
        (added,) = await results(tmp_path / "new", ADD)
        assert isinstance(added, DeviceAdded)
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("request_", [ListDevices(tenant=None), Clean(dry_run=True), AskStatus()], ids=repr)
    async def test_a_mistyped_directory_is_not_made(self, tmp_path: Path, request_: Request) -> None:
        with pytest.raises(CommandFailed, match="check data_dir"):
            await results(tmp_path / "typo", request_)
        assert not (tmp_path / "typo").exists()

    async def test_another_users_directory_is_not_touched(self, tmp_path: Path) -> None:
        with pytest.raises(CommandFailed, match="run this as its owner") as refused:
            await results(tmp_path, ADD, uid=OWNER + 1)
        assert refused.value.code is ErrorCode.FORBIDDEN
        assert not is_used(tmp_path)

    async def test_a_path_through_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        settings = settings_in(tmp_path / "file" / "data")
        with pytest.raises(CommandFailed, match="Not a directory"):
            _ = [each async for each in operate(settings, ADD, offline, 0, FakeClock(), 0)]

    @pytest.mark.parametrize(
        "error", [CatalogNewer("written by a newer program"), KeysInvalid("a short secret"), OSError(28, "disk full")]
    )
    async def test_an_error_of_opening_the_directory_becomes_a_command_failure(
        self, tmp_path: Path, error: Exception
    ) -> None:
        with pytest.raises(CommandFailed, match=str(error.args[-1])) as refused:
            await results(tmp_path, ADD, failing(error))
        assert refused.value.code is ErrorCode.UNAVAILABLE

    async def test_a_refusal_is_raised(self, tmp_path: Path) -> None:
        with pytest.raises(CommandFailed, match="not a valid tenant name"):
            await results(tmp_path, Verify(tenant="/", device=None))


class TestLocked:
    async def test_it_waits_for_a_lock_holder_without_a_socket(self, tmp_path: Path) -> None:
        clock, tries = FakeClock(), 0

        @asynccontextmanager
        async def busy(settings: Settings) -> AsyncIterator[Commands]:
            nonlocal tries
            tries += 1
            clock.pass_s(1)
            if tries < 3:
                raise DirectoryLocked("another uplinkd owns it")
            async with offline(settings) as commands:
                yield commands

        (added,) = [each async for each in operate(settings_in(tmp_path), ADD, busy, OWNER, clock, 5)]
        assert isinstance(added, DeviceAdded)
        assert tries == 3

    async def test_the_wait_is_bounded(self, tmp_path: Path) -> None:
        async with offline(settings_in(tmp_path)):
            with pytest.raises(DirectoryLocked):
                await results(tmp_path, ADD)


class TestOffline:
    async def test_commands_work_on_a_directory_without_a_daemon(self, tmp_path: Path) -> None:
        async with offline(settings_in(tmp_path)) as commands:
            added = await commands.add_device(None, "cam")
            status = await commands.status()
        assert len(added.secret) == 43
        assert not status.is_running
        async with offline(settings_in(tmp_path)) as commands:
            with pytest.raises(CommandFailed, match="already enrolled"):
                await commands.add_device(None, "cam")

    async def test_a_locked_directory_is_refused(self, tmp_path: Path) -> None:
        async with offline(settings_in(tmp_path)):
            with pytest.raises(DirectoryLocked):
                async with offline(settings_in(tmp_path)):
                    pass

    async def test_invalid_keys_are_refused(self, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, auth=Auth(jwks_file=tmp_path / "missing.json"))
        with pytest.raises(KeysInvalid):
            async with offline(settings):
                pass
