"""A real nginx in front of the daemon, configured as in docs/http.md: the daemon authorises, nginx sends the bytes."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, ClientTimeout
from yarl import URL

from benchmarks import process
from benchmarks.peers import accel, nginx
from device.client import Uplink
from device.credentials import TokenCredentials
from device.report import FileMetadata
from protocol import frames
from tests.support.deadlines import DEADLINE_S
from tests.support.openapi_contract import Answer, check_problem
from tests.support.raw_device import open_request
from tests.support.scene import Scene, scene

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(nginx.missing() is not None, reason="nginx is not installed"),
]

IS_ROOT = os.geteuid() == 0
needs_rights = pytest.mark.skipif(
    not IS_ROOT or shutil.which("setfacl") is None,
    reason="needs root, for workers of another user, and setfacl",
)

DATA = random.Random(9110).randbytes(3_000_001)
NAME = "logs/2026 ß/boot?.log"
BY_NAME = "/v1/devices/cam/files/logs%2F2026%20%C3%9F%2Fboot%3F.log/content"
WORKER = "www-data"

VARYING = {"Server", "Date", "Connection", "X-Request-ID", "Accept-Ranges"}
"""Headers that differ between two responses, and one that nginx omits from a 206, which does not need it."""


@dataclass(frozen=True)
class Site:
    """A daemon behind nginx, and a file of the device `cam`. `log` is nginx's error log."""

    live: Scene
    session: ClientSession
    port: int
    log: Path
    id: str

    @property
    def content(self) -> str:
        return f"/v1/files/{self.id}/content"

    @property
    def token(self) -> str:
        return self.live.token("cam")

    async def send(self, name: str, data: bytes) -> str:
        """Upload a file of the device `cam`. Returns its id."""
        return await send(self.live, name, data)

    def stored(self, file_id: str) -> Path:
        return next((self.live.data_dir / "files").rglob(file_id))

    async def ask(self, path: str, method: str = "GET", token: str | None = None, **headers: str) -> Answer:
        """Ask nginx, as the device or with another token. `_` in names of headers stands for `-`."""
        return await self._ask(self.port, path, method, token, headers)

    async def ask_daemon(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return await self._ask(self.live.daemon.addresses.http[1], path, method, None, headers)

    async def _ask(self, port: int, path: str, method: str, token: str | None, headers: dict[str, str]) -> Answer:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        fields["Authorization"] = f"Bearer {self.token if token is None else token}"
        url = URL(f"http://127.0.0.1:{port}{path}", encoded=True)
        async with self.session.request(method, url, headers=fields) as response:
            for name in response.headers.keys() - {"WWW-Authenticate"}:
                assert len(response.headers.getall(name)) == 1, f"{name} is repeated"
            return Answer(response.status, response.headers, await response.read())


async def send(live: Scene, name: str, data: bytes) -> str:
    async with Uplink(*live.address, TokenCredentials(live.token("cam"))) as uplink:
        digest = hashlib.sha256(data).digest()
        sent = await uplink.send(data, name, sha256=digest, metadata=FileMetadata("text/x-log", "", "Böot.log"))
    return f"{sent.upload_id:016x}"


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    """A directory that nginx's workers can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="uplinkd-accel-") as name:
        path = Path(name)
        path.chmod(0o711)
        (path / "nginx").mkdir()
        # Not by mkdir: the umask would take the workers' right away.
        (path / "nginx").chmod(0o711)
        yield path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(top: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        data_dir = top / "data"
        live = await stack.enter_async_context(scene(data_dir, accel.ACCEL))
        if IS_ROOT:
            grant(data_dir)
        port = process.free_port()
        place = accel.Place(top / "nginx", data_dir, port, live.daemon.addresses.http[1], WORKER if IS_ROOT else "")
        stack.enter_context(accel.serving(place))
        session = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(DEADLINE_S)))
        yield Site(live, session, port, top / "nginx" / "nginx.log", await send(live, NAME, DATA))


@pytest.fixture(autouse=True)
def nginx_errors(site: Site) -> Iterator[None]:
    """Print what nginx logged during the test, for the report of one that fails."""
    before = site.log.stat().st_size
    yield
    with site.log.open("rb") as log:
        log.seek(before)
        print(log.read().decode(errors="replace"))


def grant(data_dir: Path) -> None:
    """Let nginx's workers read the files and nothing else, by the commands in docs/http.md."""
    data_dir.chmod(0o711)
    rights = f"group:{WORKER}:rX,default:group:{WORKER}:rX"
    subprocess.run(["setfacl", "-R", "-m", rights, str(data_dir / "files")], check=True)


def described(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in VARYING}


@pytest.mark.parametrize("by_name", [False, True], ids=["by id", "by name"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(200, {}, id="whole"),
        pytest.param(206, {"Range": "bytes=1000-65535"}, id="range"),
        pytest.param(206, {"Range": "bytes=2999000-"}, id="open range"),
        pytest.param(206, {"Range": "bytes=-500"}, id="suffix"),
        pytest.param(206, {"Range": "bytes=0-9999999"}, id="range past the end"),
        pytest.param(416, {"Range": "bytes=3000001-"}, id="range beyond the end"),
        pytest.param(200, {"Range": "lines=1-2"}, id="range of another unit"),
        pytest.param(206, {"Range": "bytes=1000-", "If_Range": "ETAG"}, id="resume"),
        pytest.param(200, {"Range": "bytes=1000-", "If_Range": '"another"'}, id="resume of another file"),
        pytest.param(304, {"If_None_Match": "ETAG"}, id="known"),
        pytest.param(200, {"If_None_Match": '"another"'}, id="another is known"),
        pytest.param(304, {"If_Modified_Since": "MODIFIED"}, id="known by its date"),
        pytest.param(200, {"If_Match": "ETAG"}, id="the right one"),
        pytest.param(206, {"If_Match": "ETAG", "Range": "bytes=5-9"}, id="range of the right one"),
        pytest.param(412, {"If_Match": '"another"'}, id="the wrong one"),
        pytest.param(200, {"If_Unmodified_Since": "MODIFIED"}, id="not changed since"),
        pytest.param(412, {"If_Unmodified_Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, id="changed since"),
    ],
)
async def test_the_response_is_the_same_as_the_daemons(
    site: Site, by_name: bool, status: int, headers: dict[str, str]
) -> None:
    path = BY_NAME if by_name else site.content
    known = (await site.ask_daemon(path, "HEAD")).headers
    values = {"ETAG": known["ETag"], "MODIFIED": known["Last-Modified"]}
    asked = {name: values.get(value, value) for name, value in headers.items()}
    for method in ("GET", "HEAD"):
        ours, theirs = await site.ask_daemon(path, method, **asked), await site.ask(path, method, **asked)
        assert (method, theirs.status) == (method, ours.status)
        assert described(theirs) == described(ours)
        if status < 400:
            assert theirs.body == ours.body
        elif method == "GET":
            check_problem(theirs)
    assert (await site.ask(path, **asked)).status == status


@pytest.mark.parametrize("asked", ["bytes=3000001-3000002", "bytes=9-1"])
async def test_nginx_refuses_an_unsatisfiable_closed_range(site: Site, asked: str) -> None:
    path = site.content
    async with site.session.get(
        f"http://127.0.0.1:{site.port}{path}", headers={"Authorization": f"Bearer {site.token}", "Range": asked}
    ) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
        assert DATA[:9] not in await answer.read()


async def test_several_ranges_return_the_right_bytes(site: Site) -> None:
    answer = await site.ask(site.content, Range="bytes=2000000-,0-9")
    assert answer.status == 206
    message = message_from_bytes(f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode() + answer.body)
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part.get_payload(decode=True) for part in parts] == [DATA[2_000_000:], DATA[:10]]
    assert [part["Content-Type"] for part in parts] == ["text/x-log"] * 2


@pytest.mark.parametrize(("query", "headers"), [("?whole", {}), ("?range", {"Range": "bytes=5-9"})])
async def test_nginx_sends_the_bytes(site: Site, query: str, headers: dict[str, str]) -> None:
    # For a new query nginx has no cached answer of the daemon yet.
    request_id = f"sent-by-nginx-{query[1:]}"
    answer = await site.ask(site.content + query, X_Request_Id=request_id, **headers)
    assert answer.body in {DATA, DATA[5:10]}
    line = json.loads(await site.live.until_logged(lambda line: request_id in line))
    assert (line["status"], line["sent_bytes"]) == (200, 0)


async def test_the_daemon_is_asked_once_for_many_ranges(site: Site) -> None:
    starts, token, request_id = range(0, 50_000, 100), site.token, "one-of-many-ranges"
    answers = [
        await site.ask(
            f"{site.content}?many", token=token, Range=f"bytes={start}-{start + 99}", X_Request_Id=request_id
        )
        for start in starts
    ]
    assert b"".join(answer.body for answer in answers) == DATA[:50_000]
    await site.live.until_logged(lambda line: request_id in line)
    # nginx caches an answer for 10 s, and a busy machine may need several answers.
    assert sum(request_id in line for line in site.live.daemon.log) < len(starts) / 5


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=5-9"}], ids=["whole", "range"])
async def test_nginx_sends_nothing_that_the_daemon_refuses(site: Site, headers: dict[str, str]) -> None:
    other, broken = site.live.token("other"), "not a token"
    for path, token, status in [
        (site.content, broken, 401),
        (site.content, other, 404),
        (BY_NAME, other, 404),
        (f"/v1/files/{1:016x}/content", site.token, 404),
        ("/v1/files/../files/content", site.token, 404),
    ]:
        answer = await site.ask(path, token=token, **headers)
        assert (path, answer.status) == (path, status)
        check_problem(answer)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_the_daemon_refuses_other_methods(site: Site, method: str) -> None:
    answer = await site.ask(site.content, method)
    assert answer.status == 405
    check_problem(answer)


async def test_the_internal_locations_cannot_be_reached(site: Site) -> None:
    stored = site.stored(site.id).relative_to(site.live.data_dir)
    for path in (f"/{stored}", "/uplinkd-grant", "/files/", "/files/../secret", "/files/..%2Fsecret"):
        assert (path, (await site.ask(path)).status) == (path, 404)


async def test_an_unfinished_file_is_not_sent(site: Site) -> None:
    async with await site.live.admitted("cam") as wire:
        opened = await wire.open(1, open_request("arriving"))
        for headers in ({}, {"Range": "bytes=0-1"}):
            answer = await site.ask(f"/v1/files/{opened.upload_id:016x}/content", **headers)
            assert answer.status == 409
            check_problem(answer)
        wire.say(frames.Finish(0), 1)
        await wire.hear(frames.Finished, 1)


async def test_a_deleted_file_is_gone(site: Site) -> None:
    path = f"/v1/files/{await site.send('short-lived', DATA)}/content"
    for headers in ({}, {"Range": "bytes=0-9"}):
        assert (await site.ask(path, **headers)).status in (200, 206)
    assert (await site.ask(path.removesuffix("/content"), "DELETE")).status == 204
    answer = await site.ask(path)
    assert answer.status == 410
    check_problem(answer)

    # nginx may keep the file open for up to 2 s.
    async with asyncio.timeout(DEADLINE_S):
        while (answer := await site.ask(path, Range="bytes=0-9")).status != 410:
            assert answer.body == DATA[:10]


async def test_a_running_download_survives_the_deletion(site: Site) -> None:
    data = random.Random(2).randbytes(40_000_000)
    path = f"/v1/files/{await site.send('long', data)}/content"
    url, headers = f"http://127.0.0.1:{site.port}{path}", {"Authorization": f"Bearer {site.token}"}
    async with ClientSession(read_bufsize=1 << 16) as session, session.get(url, headers=headers) as response:
        got = await response.content.readexactly(1000)
        assert (await site.ask(path.removesuffix("/content"), "DELETE")).status == 204
        assert got + await response.content.read() == data


async def test_an_empty_file(site: Site) -> None:
    path = f"/v1/files/{await site.send('empty', b'')}/content"
    answer = await site.ask(path)
    assert (answer.status, answer.body) == (200, b"")
    assert (await site.ask(path, Range="bytes=0-9")).status == 416


async def test_without_nginx_the_daemon_sends_the_bytes_itself(site: Site) -> None:
    assert (await site.ask_daemon(site.content)).body == DATA


@needs_rights
class TestRights:
    """nginx's workers are another user, which may read the files and nothing else in the data directory."""

    async def test_the_workers_may_read_files_and_nothing_else(self, site: Site) -> None:
        data_dir = site.live.data_dir
        kept = {path for path in data_dir.rglob("*") if path.is_file()}
        readable = {path for path in kept if may_read(path)}
        assert site.stored(site.id) in readable
        assert readable == {path for path in kept if path.is_relative_to(data_dir / "files")}
        assert data_dir / "secret" in kept - readable
        assert not may_read(data_dir)

    async def test_only_the_workers_can_read_the_cached_tokens(self, site: Site) -> None:
        token = site.token
        await site.ask(site.content, token=token, Range="bytes=0-9")
        kept = [path for path in (site.log.parent / "cache").iterdir() if token.encode() in path.read_bytes()]
        assert kept
        assert {path.stat().st_mode & 0o077 for path in (*kept, site.log.parent / "cache")} == {0}

    @pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}], ids=["whole", "range"])
    async def test_a_file_that_the_workers_may_not_read_is_not_sent(self, site: Site, headers: dict[str, str]) -> None:
        file_id = await site.send(f"kept from nginx {headers}", DATA)
        site.stored(file_id).chmod(0o600)
        answer = await site.ask(f"/v1/files/{file_id}/content", **headers)
        assert answer.status == 403
        assert DATA[:9] not in answer.body
        assert str(site.live.data_dir).encode() not in answer.body


def may_read(path: Path) -> bool:
    return subprocess.run(["runuser", "-u", WORKER, "--", "test", "-r", path], check=False).returncode == 0
