"""The command line as a shell sees it: output, messages, exit codes."""

import asyncio
import base64
import io
import json
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from device.cli.main import main
from device.source import READ_AHEAD_BYTES
from protocol import frames
from protocol.constants import ChecksumKind, Disposition, UploadState
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, ServerEvent
from protocol.handshake import device_key
from tests.support import fake_control_plane
from tests.support.certificates import Certificate
from tests.support.fake_control_plane import FakeControlPlane
from tests.support.fake_server import FakeServer, Script, Session, breaks_connection, breaks_stream, deque_of

DATA = random.Random(3).randbytes(400_000)
SECRET = b"k" * 32
PRINTED = base64.urlsafe_b64encode(SECRET).decode().rstrip("=")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class Shell:
    """Runs `uplink` in a thread, as its own event loop needs."""

    def __init__(self, server: FakeServer, fake: FakeControlPlane) -> None:
        self.environment = {
            "UPLINK_SERVER": f"127.0.0.1:{server.port}",
            "UPLINK_HTTP": fake.url,
            "UPLINK_DEVICE": "cam-1",
            "UPLINK_TOKEN": "operator",
        }

    async def __call__(self, *arguments: str | Path) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        code = await asyncio.to_thread(main, [str(each) for each in arguments], self.environment, out, err)
        assert "Traceback" not in err.getvalue()
        return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture
async def fake() -> AsyncIterator[FakeControlPlane]:
    async with fake_control_plane.running() as running:
        yield running


@pytest.fixture
def shell(server: FakeServer, fake: FakeControlPlane) -> Shell:
    return Shell(server, fake)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "log.bin"
    path.write_bytes(DATA)
    return path


async def test_send_says_what_arrived(server: FakeServer, shell: Shell, file: Path) -> None:
    outcome = await shell("send", file)
    assert outcome == Outcome(0, "log.bin: 400000 bytes, safe and verified\n", "")
    assert server.files["log.bin"].data == DATA
    assert server.files["log.bin"].opens[0].original_name == "log.bin"
    outcome = await shell("send", file)
    assert outcome.out == "log.bin: 400000 bytes, safe and verified; the server had it already\n"


async def test_send_tells_of_resumes(server: FakeServer, shell: Shell, file: Path) -> None:
    server.scripts.append(Script(cut_after_bytes=300_000))
    outcome = await shell("send", file, "--json", "--name", "other")
    record = json.loads(outcome.out)
    assert (record["name"], record["size"], record["resumes"]) == ("other", len(DATA), 1)
    assert record["crc32c"] == f"{server.files['other'].crc32c:08x}"
    assert record["sent_bytes"] - record["resent_bytes"] == len(DATA)
    server.scripts.append(Script(cut_after_bytes=300_000))
    assert "; resumed 1 times, " in (await shell("send", file)).out


async def test_send_many_files_at_once(server: FakeServer, shell: Shell, file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    outcome = await shell("send", file, tmp_path / "missing", tmp_path / "empty")
    assert outcome.code == 1
    assert outcome.err == f"uplink: {tmp_path / 'missing'}: No such file or directory\n"
    assert {name: stored.state for name, stored in server.files.items()} == {
        "log.bin": UploadState.COMPLETE,
        "empty": UploadState.COMPLETE,
    }


def large(file: Path) -> None:
    """More than is read at a time: a small file is read but once."""
    file.write_bytes(3 * READ_AHEAD_BYTES * b"-")


def alter(file: Path) -> None:
    file.write_bytes(DATA[1:] + b"x")


async def test_changed_content_needs_to_be_allowed(server: FakeServer, shell: Shell, file: Path) -> None:
    await shell("send", file)
    alter(file)
    outcome = await shell("send", file)
    assert outcome.code == 6
    assert outcome.err.startswith(f"uplink: {file}: CONTENT_CHANGED: ")
    assert "--replace" in outcome.err
    assert "replace=True" not in outcome.err
    assert (await shell("send", file, "--replace", "--quiet")) == Outcome(0, "", "")
    assert server.files["log.bin"].data == DATA[1:] + b"x"


async def test_a_source_that_changes_while_it_is_sent(server: FakeServer, shell: Shell, file: Path) -> None:
    def change(session: Session, event: ServerEvent) -> None:
        file.write_bytes(bytes(file.stat().st_size))
        session.answer(event)

    large(file)

    server.scripts.append(Script(opens=deque_of(change)))
    outcome = await shell("send", file)
    assert outcome.code == 7
    assert outcome.err.startswith(f"uplink: {file}: the source changed while it was being sent")
    assert outcome.err.endswith("once nothing writes to it, send it again with --replace\n")


async def test_a_tag_given_by_the_caller(server: FakeServer, shell: Shell, file: Path) -> None:
    assert (await shell("send", file, "--tag", "0a0b")).code == 0
    assert server.files["log.bin"].tag == b"\x0a\x0b"
    for tag in ("xyz", "00" * 33):
        assert (await shell("send", file, "--tag", tag)).code == 1


async def test_send_refuses_ambiguous_names(shell: Shell, file: Path) -> None:
    assert "two of the files have the same name" in (await shell("send", file, file)).err
    assert "--name is for one file" in (await shell("send", file, file, "--name", "x")).err


async def test_a_pipe_is_refused(shell: Shell) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    outcome = await shell("send", f"/dev/fd/{reading}")
    os.close(reading)
    assert outcome.code == 1
    assert "write it to a file first" in outcome.err


async def test_a_secret_serves_both_planes(
    server: FakeServer, fake: FakeControlPlane, shell: Shell, file: Path
) -> None:
    del shell.environment["UPLINK_TOKEN"]
    shell.environment["UPLINK_SECRET"] = PRINTED
    server.device_key = device_key(SECRET)
    fake.world.token_exchange.secrets[("default", "cam-1")] = PRINTED
    fake.world.authenticator.principals["token-of-cam-1"] = fake.world.authenticator.principals["cam-1"]
    server.scripts.append(Script(challenge=b"c" * 32))
    assert (await shell("send", file)).code == 0
    assert (await shell("list")).code == 0
    shell.environment["UPLINK_SECRET"] = PRINTED[::-1]
    server.scripts.append(Script(challenge=b"c" * 32))
    for outcome in (await shell("send", file), await shell("list")):
        assert outcome.code == 4
        assert "check the device's name, tenant, and secret or token" in outcome.err
        assert PRINTED[::-1] not in outcome.err


async def test_tls_with_a_private_certificate(fake: FakeControlPlane, file: Path, certificate: Certificate) -> None:
    async with FakeServer(certificate.server_context()) as server:
        shell = Shell(server, fake)
        assert (await shell("send", file, "--ca", certificate.path)).code == 0
        assert server.files["log.bin"].data == DATA
        untrusted = await shell("send", file, "--tls")
    assert untrusted.code == 3
    assert "is not trusted" in untrusted.err


async def test_status(server: FakeServer, shell: Shell, file: Path) -> None:
    assert (await shell("status", "log.bin")) == Outcome(5, "log.bin: none, 0 bytes\n", "")
    await shell("send", file)
    assert (await shell("status", "log.bin")) == Outcome(0, "log.bin: complete, 400000 of 400000 bytes\n", "")
    record = json.loads((await shell("status", "log.bin", "--json")).out)
    assert record == {
        "name": "log.bin",
        "state": "complete",
        "upload_id": f"{100:016x}",
        "next_expected_byte": 400_000,
        "ranges_beyond": [],
        "size": 400_000,
        "expires_s": 0,
    }


async def test_status_of_an_upload_with_gaps(server: FakeServer, shell: Shell) -> None:
    stored = server.create(frames.Open(Disposition.RESUME_OR_CREATE, len(DATA), "log.bin"))
    for start, end in ((0, 1000), (5000, 6000)):
        stored.write(ChunksReceived(1, start, end, (DATA[start:end],), 1, ChecksumKind.CRC32C, None))
    record = json.loads((await shell("status", "log.bin", "--json")).out)
    assert (record["state"], record["next_expected_byte"]) == ("receiving", 1000)
    assert record["ranges_beyond"] == [{"start": 5000, "end": 6000}]


async def test_an_unreachable_server(shell: Shell, file: Path) -> None:
    shell.environment["UPLINK_SERVER"] = "127.0.0.1:1"
    outcome = await shell("send", file, "--give-up-after", "0")
    assert outcome.code == 3
    assert "127.0.0.1:1 cannot be reached" in outcome.err
    shell.environment["UPLINK_HTTP"] = "http://127.0.0.1:1"
    assert (await shell("list")).code == 3


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [(ErrorCode.FORBIDDEN, 4), (ErrorCode.VERSION_UNSUPPORTED, 2)],
)
async def test_a_refused_device(code: ErrorCode, exit_code: int, server: FakeServer, shell: Shell, file: Path) -> None:
    server.scripts.append(Script(hellos=deque_of(breaks_connection(code))))
    outcome = await shell("send", file)
    assert (outcome.code, f"said {code.name}" in outcome.err) == (exit_code, True)


async def test_a_file_that_is_gone(server: FakeServer, shell: Shell, file: Path) -> None:
    server.scripts.append(Script(opens=deque_of(breaks_stream(ErrorCode.GONE))))
    assert (await shell("send", file)).code == 5


async def test_list(fake: FakeControlPlane, shell: Shell) -> None:
    fake.put(DATA, "log.bin")
    fake.put(b"", "other")
    lines = (await shell("list")).out.splitlines()
    assert [line.split()[1:] for line in lines] == [["complete", "0", "other"], ["complete", "400000", "log.bin"]]
    (line,) = (await shell("list", "--prefix", "log", "--state", "complete", "--json")).out.splitlines()
    assert json.loads(line)["name"] == "log.bin"
    assert (await shell("list", "--state", "receiving", "--state", "partial")).out == ""


async def test_get(fake: FakeControlPlane, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fake.put(DATA, "logs/a.bin")
    assert (await shell("get", "logs/a.bin")) == Outcome(0, "a.bin: 400000 bytes, digest verified\n", "")
    assert (tmp_path / "a.bin").read_bytes() == DATA
    again = await shell("get", "logs/a.bin")
    assert (again.code, "a.bin is there already" in again.err) == (1, True)
    assert (await shell("get", "logs/a.bin", "--force")).code == 0
    assert (await shell("get", "logs/a.bin", "-o", tmp_path / "b", "--quiet")) == Outcome(0, "", "")
    assert (tmp_path / "b").read_bytes() == DATA
    assert (await shell("get", "other")).code == 5


@pytest.mark.parametrize("name", ["..", "a/..", "/"])
async def test_a_name_never_leads_out_of_the_directory(name: str, shell: Shell) -> None:
    outcome = await shell("get", name)
    assert (outcome.code, "give --output" in outcome.err) == (1, True)


async def test_rm(fake: FakeControlPlane, shell: Shell, tmp_path: Path) -> None:
    fake.put(DATA)
    assert (await shell("rm", "log.bin")) == Outcome(0, "log.bin: deleted\n", "")
    assert (await shell("rm", "log.bin")).code == 5
    assert (await shell("get", "log.bin", "--output", tmp_path / "x")).code == 5
