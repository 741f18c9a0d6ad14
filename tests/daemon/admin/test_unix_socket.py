"""Both ends of the admin socket, over a real one."""

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import uvloop

from daemon.admin import unix_socket
from daemon.admin.messages import (
    LINE_BYTES_MAX,
    AddDevice,
    AskStatus,
    Clean,
    EndOfResults,
    Greeting,
    Result,
    Verify,
    write_answer,
    write_request,
)
from daemon.admin.results import CommandFailed, DaemonStatus, DeviceAdded
from daemon.admin.unix_socket import CONNECTIONS_MAX, PATH_BYTES_MAX, AdminServer, DaemonSilent, NoDaemon, ask
from daemon.catalog.records import Completion
from daemon.upkeep.verify import Checked
from protocol.errors import ErrorCode
from tests.support.catalog_samples import REQUEST
from tests.support.command_parts import VERSION, Parts, parts_in
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_machine import NOW_MS, CapturedLog


class Daemon:
    """A listening admin server and its parts."""

    def __init__(self, parts: Parts, path: Path) -> None:
        self.parts = parts
        self.path = path
        self.log = CapturedLog()
        self.server = AdminServer(path, parts.commands(), self.log.logger)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with parts_in(tmp_path) as parts:
        made = Daemon(parts, tmp_path / "admin.sock")
        await made.server.start()
        yield made
        await made.server.close()


async def results(path: Path, request: AddDevice | AskStatus | Clean | Verify) -> list[Result]:
    async with asyncio.timeout(DEADLINE_S):
        return [each async for each in ask(path, request)]


async def exchange(path: Path, *lines: bytes) -> list[dict[str, object]]:
    """Send `lines` to the daemon and return its whole answer."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.writelines(lines)
        answers = [json.loads(line) async for line in reader]
        writer.close()
        return answers


@asynccontextmanager
async def fake_daemon(path: Path, *lines: bytes) -> AsyncIterator[None]:
    """Listen at `path`; send `lines` to a client, then close the connection."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(lines)
        writer.close()

    server = await asyncio.start_unix_server(speak, path)
    yield
    server.close()


class TestCommands:
    async def test_a_result_comes_back(self, daemon: Daemon) -> None:
        (added,) = await results(daemon.path, AddDevice(tenant="acme", device="pump-7"))
        assert isinstance(added, DeviceAdded)
        assert await daemon.parts.catalog.device("acme", "pump-7") is not None

    async def test_it_works_on_the_daemons_event_loop(self, tmp_path: Path) -> None:
        async def one_command() -> list[Result]:
            async with parts_in(tmp_path) as parts:
                server = AdminServer(tmp_path / "admin.sock", parts.commands(), CapturedLog().logger)
                await server.start()
                answer = await results(tmp_path / "admin.sock", AskStatus())
                await server.close()
                return answer

        def run() -> list[Result]:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(one_command())

        (status,) = await asyncio.to_thread(run)
        assert isinstance(status, DaemonStatus)

    async def test_a_refusal_comes_back_with_its_code(self, daemon: Daemon) -> None:
        await results(daemon.path, AddDevice(tenant=None, device="pump-7"))
        with pytest.raises(CommandFailed, match="already enrolled") as refused:
            await results(daemon.path, AddDevice(tenant=None, device="pump-7"))
        assert refused.value.code is ErrorCode.CONFLICT

    async def test_results_are_streamed(self, daemon: Daemon) -> None:
        catalog = daemon.parts.catalog
        for upload_id in (1, 2, 3):
            await catalog.open(
                REQUEST.__class__(upload_id, "default", "pump-7", f"{upload_id}", REQUEST.disposition, NOW_MS, size=0)
            )
            await catalog.complete(Completion(upload_id, 1, 0, 0, None, (), NOW_MS))
        found = await results(daemon.path, Verify(tenant=None, device=None))
        assert [each.name for each in found if isinstance(each, Checked)] == ["1", "2", "3"]

    async def test_the_log_says_who_did_what_without_secrets(self, daemon: Daemon) -> None:
        (added,) = await results(daemon.path, AddDevice(tenant=None, device="pump-7"))
        assert isinstance(added, DeviceAdded)
        (line,) = daemon.log.lines
        assert line["command"] == "AddDevice"
        assert line["uid"] == daemon.path.stat().st_uid
        assert line["request"] == {"tenant": None, "device": "pump-7", "replace": False}
        assert added.secret not in repr(daemon.log.lines)


class TestBadClients:
    async def test_an_incomplete_request_gets_no_answer(self, daemon: Daemon) -> None:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_unix_connection(daemon.path)
            assert b"Greeting" in await reader.readline()
            writer.write(b'{"type": "AskStatus", "val')
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    async def test_a_request_that_takes_too_long_gets_no_answer(
        self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unix_socket, "REQUEST_TIMEOUT_S", 0.01)
        greeting, *rest = await exchange(daemon.path, b'{"type":')
        assert (greeting["type"], rest) == ("Greeting", [])
        assert daemon.log.at("info") == ["operator left"]

    async def test_a_line_that_is_too_long_is_refused(self, daemon: Daemon) -> None:
        _, answer = await exchange(daemon.path, b"x" * (LINE_BYTES_MAX + 1))
        assert answer["type"] == "CommandRefused"
        assert "REQUEST_TOO_LARGE" in str(answer["value"])

    async def test_garbage_is_refused(self, daemon: Daemon) -> None:
        _, answer = await exchange(daemon.path, b"GET / HTTP/1.1\r\n")
        assert "REQUEST_INVALID" in str(answer["value"])

    async def test_a_client_may_leave_during_the_answer(self, daemon: Daemon) -> None:
        reader, writer = await asyncio.open_unix_connection(daemon.path)
        await reader.readline()
        cleaner = daemon.parts.cleanup
        cleaner.go_on.clear()
        writer.write(write_request(Clean(dry_run=True)))
        await cleaner.entered.wait()
        writer.transport.abort()
        cleaner.go_on.set()
        (status,) = await results(daemon.path, AskStatus())
        assert isinstance(status, DaemonStatus)

    async def test_another_user_is_refused(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        uid = daemon.path.stat().st_uid
        monkeypatch.setattr(unix_socket, "ROOT_UID", uid + 1)
        monkeypatch.setattr(daemon.server, "_uid", uid + 2)
        with pytest.raises(CommandFailed, match=f"user {uid} may not") as refused:
            await results(daemon.path, AskStatus())
        assert refused.value.code is ErrorCode.FORBIDDEN
        assert daemon.log.at("warning") == ["operator refused"]

    async def test_too_many_commands_at_once_are_refused(self, daemon: Daemon) -> None:
        held = [await asyncio.open_unix_connection(daemon.path) for _ in range(CONNECTIONS_MAX)]
        for reader, _ in held:
            await reader.readline()
        with pytest.raises(CommandFailed, match="too many"):
            await results(daemon.path, AskStatus())
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(DEADLINE_S):
            await daemon.server._tasks.wait()
        assert await results(daemon.path, AskStatus())


class TestSocket:
    async def test_only_its_owner_may_connect(self, daemon: Daemon) -> None:
        assert daemon.path.stat().st_mode & 0o777 == 0o600

    async def test_it_is_removed_when_the_daemon_stops(self, daemon: Daemon) -> None:
        await daemon.server.close()
        assert not daemon.path.exists()
        with pytest.raises(NoDaemon):
            await results(daemon.path, AskStatus())

    async def test_running_commands_are_cut_short_when_the_daemon_stops(self, daemon: Daemon) -> None:
        cleaner = daemon.parts.cleanup
        cleaner.go_on.clear()
        asking = asyncio.get_running_loop().create_task(results(daemon.path, Clean(dry_run=False)))
        await cleaner.entered.wait()
        await daemon.server.close()
        with pytest.raises(CommandFailed, match="ended before it answered"):
            await asking

    async def test_the_socket_of_a_dead_daemon_is_replaced(self, daemon: Daemon, tmp_path: Path) -> None:
        path = tmp_path / "stale.sock"
        with closing(socket.socket(socket.AF_UNIX)) as dead:
            dead.bind(str(path))
        server = AdminServer(path, daemon.parts.commands(), daemon.log.logger)
        await server.start()
        assert await results(path, AskStatus())
        await server.close()

    async def test_the_socket_of_a_live_daemon_is_not_touched(self, daemon: Daemon) -> None:
        second = AdminServer(daemon.path, daemon.parts.commands(), daemon.log.logger)
        with pytest.raises(OSError, match="belongs to another daemon") as refused:
            await second.start()
        assert refused.value.errno == errno.EADDRINUSE
        await second.close()
        assert await results(daemon.path, AskStatus())

    async def test_a_socket_whose_owner_does_not_answer_is_not_touched(self, daemon: Daemon, tmp_path: Path) -> None:
        path = tmp_path / "hung.sock"
        with closing(socket.socket(socket.AF_UNIX)) as hung, closing(socket.socket(socket.AF_UNIX)) as waiting:
            hung.bind(str(path))
            hung.listen(0)
            waiting.connect(str(path))
            with pytest.raises(OSError, match="belongs to another daemon"):
                await AdminServer(path, daemon.parts.commands(), daemon.log.logger).start()

    async def test_a_file_that_is_not_a_socket_is_not_touched(self, daemon: Daemon, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("precious")
        with pytest.raises(OSError, match="is not a socket"):
            await AdminServer(path, daemon.parts.commands(), daemon.log.logger).start()
        assert path.read_text() == "precious"

    async def test_a_missing_directory_is_reported(self, daemon: Daemon, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="check its directory"):
            await AdminServer(tmp_path / "no" / "socket", daemon.parts.commands(), daemon.log.logger).start()

    async def test_a_path_that_is_too_long_is_refused(self, daemon: Daemon, tmp_path: Path) -> None:
        path = tmp_path / ("x" * PATH_BYTES_MAX)
        with pytest.raises(OSError, match="shorter admin_socket"):
            await AdminServer(path, daemon.parts.commands(), daemon.log.logger).start()

    async def test_another_daemons_socket_is_not_removed_on_close(self, daemon: Daemon) -> None:
        daemon.path.unlink()
        second = AdminServer(daemon.path, daemon.parts.commands(), daemon.log.logger)
        await second.start()
        await daemon.server.close()
        assert daemon.path.exists()
        await second.close()


class TestAsk:
    async def test_no_daemon_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(NoDaemon):
            await results(tmp_path / "admin.sock", AskStatus())
        with closing(socket.socket(socket.AF_UNIX)) as dead:
            dead.bind(str(tmp_path / "dead.sock"))
        with pytest.raises(NoDaemon):
            await results(tmp_path / "dead.sock", AskStatus())
        (tmp_path / "file").touch()
        with pytest.raises(NoDaemon):
            await results(tmp_path / "file" / "admin.sock", AskStatus())

    async def test_a_daemon_that_hangs_is_reported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unix_socket, "GREETING_TIMEOUT_S", 0.01)
        path = tmp_path / "admin.sock"
        with closing(socket.socket(socket.AF_UNIX)) as hung:
            hung.bind(str(path))
            hung.listen(0)
            with pytest.raises(DaemonSilent, match="does not answer"):
                await results(path, AskStatus())
            # The first one's connection still waits to be accepted.
            with pytest.raises(DaemonSilent, match="accepts no connection"):
                await results(path, AskStatus())

    async def test_a_path_that_cannot_be_connected_to_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(CommandFailed, match="cannot be used"):
            await results(tmp_path / ("x" * 200), AskStatus())

    async def test_another_program_at_the_socket_is_reported(self, tmp_path: Path) -> None:
        async with fake_daemon(tmp_path / "socket", write_answer(EndOfResults())):
            with pytest.raises(CommandFailed, match="check admin_socket"):
                await results(tmp_path / "socket", AskStatus())

    @pytest.mark.parametrize("lines", [(), (write_answer(Greeting(VERSION)), b'{"type":'), (b'{"type"',)])
    async def test_an_answer_cut_short_is_reported(self, tmp_path: Path, lines: tuple[bytes, ...]) -> None:
        async with fake_daemon(tmp_path / "socket", *lines):
            with pytest.raises(CommandFailed, match="ended before it answered"):
                await results(tmp_path / "socket", AskStatus())

    async def test_a_second_greeting_is_not_a_result(self, tmp_path: Path) -> None:
        lines = [write_answer(each) for each in (Greeting(VERSION), Greeting(VERSION), EndOfResults())]
        async with fake_daemon(tmp_path / "socket", *lines):
            assert await results(tmp_path / "socket", AskStatus()) == []

    async def test_an_answer_that_is_too_long_is_refused(self, tmp_path: Path) -> None:
        async with fake_daemon(tmp_path / "socket", b"x" * (2 * LINE_BYTES_MAX)):
            with pytest.raises(CommandFailed, match="a line has more than"):
                await results(tmp_path / "socket", AskStatus())

    async def test_an_error_code_of_a_newer_daemon_is_reported(self, tmp_path: Path) -> None:
        line = b'{"type": "CommandRefused", "value": {"code": "TIRED", "detail": "sleep"}}\n'
        async with fake_daemon(tmp_path / "socket", line):
            with pytest.raises(CommandFailed, match="sleep") as refused:
                await results(tmp_path / "socket", AskStatus())
        assert refused.value.code is ErrorCode.INTERNAL
