"""The `uplink` command against a real daemon: its effects, output and exit codes."""

import asyncio
import hashlib
import json
import os
import pty
import random
import signal
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from protocol import frames
from tests.support.cutting_proxy import CuttingProxy, Span
from tests.support.deadlines import SCENE_S
from tests.support.raw_device import open_request
from tests.support.scene import Scene, scene
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAM = Path(sys.executable).parent / "uplink"

DATA = random.Random(515).randbytes(2_000_000)


UP_ONCE, NEVER = Span(300_000, 300_000), Span(10**9, 10**9)
"""Cut every connection after this many bytes."""

OK, USAGE, REFUSED, UNREACHABLE, AUTHENTICATION, NOT_FOUND, CONTENT_CHANGED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


@dataclass(frozen=True)
class Ran:
    """The exit code and output of a command."""

    code: int | None
    out: str
    err: str

    @property
    def record(self) -> dict[str, object]:
        """The single line that --json prints."""
        record = json.loads(self.out)
        assert isinstance(record, dict)
        return record


@dataclass(frozen=True)
class Cli:
    """Runs `uplink` in its own directory."""

    live: Scene
    directory: Path
    environment: dict[str, str]

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            PROGRAM,
            *arguments,
            cwd=self.directory,
            env={**self.environment, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, **environment: str) -> Ran:
        """Run a command to its end. `environment` overrides variables of a working environment."""
        process = await self.start(*arguments, **environment)
        async with asyncio.timeout(SCENE_S):
            out, err = await process.communicate()
        return Ran(process.returncode, out.decode(), err.decode())

    def write(self, name: str, data: bytes = DATA) -> str:
        (self.directory / name).write_bytes(data)
        return name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("cli") / "data") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secret(live: Scene) -> str:
    return (await live.daemon.command("device", "add", "cam", "--quiet")).strip()


@pytest.fixture
def cli(live: Scene, secret: str, tmp_path: Path) -> Cli:
    own = {
        "UPLINK_SERVER": "{}:{}".format(*live.address),
        "UPLINK_HTTP": "http://{}:{}".format(*live.daemon.addresses.http),
        "UPLINK_DEVICE": "cam",
        "UPLINK_SECRET": secret,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UPLINK")}
    return Cli(live, tmp_path, inherited | own)


async def test_a_file_is_sent_listed_downloaded_and_deleted(cli: Cli) -> None:
    sent = await cli.run("send", cli.write("there.bin"))
    assert (sent.code, sent.out, sent.err) == (OK, "there.bin: 2000000 bytes, safe and verified\n", "")
    again = await cli.run("send", "there.bin")
    assert (again.code, again.out) == (
        OK,
        "there.bin: 2000000 bytes, safe and verified; the server had it already\n",
    )
    status = await cli.run("status", "there.bin")
    assert (status.code, status.out) == (OK, "there.bin: complete, 2000000 of 2000000 bytes\n")
    listed = await cli.run("list", "--prefix", "there")
    assert listed.code == OK
    assert listed.out.split()[1:] == ["complete", "2000000", "there.bin"]
    got = await cli.run("get", "there.bin", "-o", "back.bin")
    assert (got.code, got.out) == (OK, "back.bin: 2000000 bytes, digest verified\n")
    assert (cli.directory / "back.bin").read_bytes() == DATA
    removed = await cli.run("rm", "there.bin")
    assert (removed.code, removed.out) == (OK, "there.bin: deleted\n")
    assert (await cli.run("get", "there.bin", "-o", "gone.bin")).code == NOT_FOUND
    assert not (cli.directory / "gone.bin").exists()


async def test_json_output_has_ids_digests_and_states(cli: Cli) -> None:
    sent = (await cli.run("send", "--json", cli.write("json.bin"))).record
    assert sent["sha256"] == hashlib.sha256(DATA).hexdigest()
    status = (await cli.run("status", "--json", "json.bin")).record
    assert (status["upload_id"], status["state"]) == (sent["upload_id"], "complete")
    listed = (await cli.run("list", "--json", "--prefix", "json.bin")).record
    assert (listed["id"], listed["sha256"]) == (sent["upload_id"], sent["sha256"])


async def test_a_missing_file_fails_the_command_but_not_the_other_files(cli: Cli) -> None:
    names = [cli.write(f"several-{number}.bin", bytes(number)) for number in (0, 1, 70_000)]
    ran = await cli.run("send", *names, "missing.bin")
    assert ran.code == USAGE
    assert ran.err == "uplink: missing.bin: No such file or directory\n"
    assert ran.out.count("safe and verified") == 3
    files = (await cli.live.http.get("/v1/files?prefix=several-", token=cli.live.operator)).json()["files"]
    assert isinstance(files, list)
    assert {file["size"] for file in files} == {0, 1, 70_000}


async def test_an_upload_survives_cuts_and_reports_them(cli: Cli) -> None:
    cuts = Span(100_000, 600_000)
    async with CuttingProxy(cli.live.address, random.Random(4), up=cuts, down=Span(2_000, 4_000), cuts_max=3) as proxy:
        name = cli.write("cut.bin")
        ran = await cli.run("send", name, UPLINK_SERVER="{}:{}".format(*proxy.address))
        assert len(proxy.cuts) == 3
    assert ran.code == OK
    assert "resumed" in ran.out
    assert "bytes sent again" in ran.out
    path = "/v1/devices/cam/files/cut.bin/content"
    assert (await cli.live.http.get(path, token=cli.live.operator)).body == DATA


async def test_a_terminal_shows_progress(cli: Cli) -> None:
    ours, theirs = pty.openpty()
    # A new terminal has no size, so nothing could be shown in it.
    termios.tcsetwinsize(theirs, (24, 100))
    name = cli.write("progress.bin")
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "send", name, cwd=cli.directory, env=cli.environment, stderr=theirs, stdout=asyncio.subprocess.PIPE
    )
    os.close(theirs)
    async with asyncio.timeout(SCENE_S):
        shown = await asyncio.to_thread(_read_all, ours)
        assert await process.wait() == OK
    assert "progress.bin" in shown
    assert "100%" in shown


def _read_all(descriptor: int) -> str:
    pieces = []
    try:
        while piece := os.read(descriptor, 4096):
            pieces.append(piece)
    except OSError:
        # A terminal whose other end is closed returns EIO instead of end of file.
        pass
    finally:
        os.close(descriptor)
    return b"".join(pieces).decode(errors="replace")


async def test_an_interrupted_upload_can_be_resumed(cli: Cli) -> None:
    async with CuttingProxy(cli.live.address, random.Random(1), up=UP_ONCE, down=NEVER, cuts_max=1000) as proxy:
        # Two hundred cuts to go, each with a new connection: the signal comes long before the end.
        name = cli.write("interrupted.bin", bytes(200 * UP_ONCE.bytes_max))
        process = await cli.start("send", name, UPLINK_SERVER="{}:{}".format(*proxy.address))
        await until(lambda: proxy.cuts)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SCENE_S):
            _, err = await process.communicate()
    assert process.returncode == INTERRUPTED
    assert err.decode() == ("uplink: interrupted; what was acknowledged is safe: the same command resumes from there\n")
    assert (await cli.run("send", name)).code == OK


async def test_changed_content_needs_the_replace_option(cli: Cli) -> None:
    name = cli.write("changed.txt", b"one")
    assert (await cli.run("send", name)).code == OK
    cli.write(name, b"another")
    refused = await cli.run("send", name)
    assert refused.code == CONTENT_CHANGED
    assert refused.err.startswith("uplink: changed.txt: CONTENT_CHANGED: ")
    assert "give --replace" in refused.err
    assert (await cli.run("send", "--replace", name)).code == OK
    assert (await cli.run("get", name, "--force")).code == OK
    assert (cli.directory / name).read_bytes() == b"another"


async def test_an_unfinished_upload_is_shown_and_can_be_cancelled(cli: Cli) -> None:
    async with await cli.live.admitted("cam") as wire:
        await wire.open(1, open_request("half.bin", 100))
        await wire.upload(1, 0, bytes(40))
        status = await cli.run("status", "half.bin")
        assert (status.code, status.out) == (OK, "half.bin: receiving, 40 of 100 bytes\n")
        got = await cli.run("get", "half.bin")
        assert got.code == REFUSED
        assert "receiving" in got.err
        assert (await cli.run("rm", "half.bin")).code == OK
        assert isinstance((await wire.next()).frame, frames.Error)


async def test_an_unknown_name(cli: Cli) -> None:
    for command in ("status", "get", "rm"):
        ran = await cli.run(command, "nothing.bin")
        assert ran.code == NOT_FOUND, ran
    empty = await cli.run("list", "--prefix", "nothing")
    assert (empty.code, empty.out) == (OK, "")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"UPLINK_SECRET": "A" * 43}, "check the device's name, tenant, and secret or token"),
        ({"UPLINK_DEVICE": "unknown"}, "check the device's name, tenant, and secret or token"),
        ({"UPLINK_SECRET": "", "UPLINK_TOKEN": "not.a.token"}, "token refused"),
    ],
    ids=["secret", "device", "token"],
)
async def test_a_wrong_credential(cli: Cli, environment: dict[str, str], message: str) -> None:
    for arguments in (("send", cli.write("denied.bin", b"x")), ("list",)):
        ran = await cli.run(*arguments, **environment)
        assert ran.code == AUTHENTICATION, ran
        assert message in ran.err
        assert "A" * 43 not in ran.err
        assert "not.a.token" not in ran.err


async def test_a_disabled_device(cli: Cli) -> None:
    secret = (await cli.live.daemon.command("device", "add", "retired", "--quiet")).strip()
    await cli.live.daemon.command("device", "disable", "retired")
    for arguments in (("send", cli.write("late.bin", b"x")), ("list",)):
        ran = await cli.run(*arguments, UPLINK_DEVICE="retired", UPLINK_SECRET=secret)
        assert ran.code == AUTHENTICATION, ran
        assert "disabled" in ran.err


async def test_an_unreachable_server(cli: Cli) -> None:
    nowhere = {"UPLINK_SERVER": "127.0.0.1:1", "UPLINK_HTTP": "http://127.0.0.1:1"}
    ran = await cli.run("send", "--give-up-after", "0.1", cli.write("nowhere.bin", b"x"), **nowhere)
    assert ran.code == UNREACHABLE
    assert "127.0.0.1:1 cannot be reached" in ran.err
    assert "the same command resumes from there" in ran.err
    assert (await cli.run("list", **nowhere)).code == UNREACHABLE


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ((), {}),
        (("send",), {}),
        (("send", "x", "--tag", "xyz"), {}),
        (("status", "x"), {"UPLINK_SECRET": ""}),
        (("status", "x"), {"UPLINK_SECRET": "short"}),
        (("status", "x"), {"UPLINK_SERVER": "nonsense"}),
        (("status", "x", "--ca", "missing.pem"), {}),
    ],
)
async def test_wrong_usage_is_explained(cli: Cli, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    ran = await cli.run(*arguments, **environment)
    assert (ran.code, ran.out) == (USAGE, "")
    assert ran.err
    assert "Traceback" not in ran.err
