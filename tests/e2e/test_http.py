"""Operators read over HTTP what devices sent, from one real daemon. Every response is checked against openapi.yaml."""

import hashlib
import random
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email import message_from_bytes
from email.utils import formatdate

import pytest
import pytest_asyncio

from device.client import Uplink
from device.credentials import SecretCredentials, TokenCredentials
from device.report import FileMetadata, Sent
from protocol import frames
from protocol.checksum import crc32c
from tests.support.openapi_contract import Answer
from tests.support.raw_device import Wire, chunk, open_request, token_hello
from tests.support.scene import Scene, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = random.Random(7233).randbytes(3_000_001)
NAME = "logs/2026 ß ä/boot?.log"
PATH = "/v1/devices/cam/files/logs%2F2026%20%C3%9F%20%C3%A4%2Fboot%3F.log"


@dataclass(frozen=True)
class World:
    """A daemon with a file of the device `cam`, the device's secret, and tokens of two devices and an operator."""

    live: Scene
    sent: Sent
    secret: str
    cam: str
    other: str
    operator: str

    @property
    def id(self) -> str:
        return f"{self.sent.upload_id:016x}"

    async def get(self, path: str, token: str | None = None, **headers: str) -> Answer:
        """GET as the operator or with another token. `_` in names of headers stands for `-`."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.live.http.get(path, token=token or self.operator, headers=fields)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with scene(tmp_path_factory.mktemp("http") / "data") as live:
        command = live.daemon.command
        secret = (await command("device", "add", "cam", "--quiet")).strip()
        sha256 = hashlib.sha256(DATA).digest()
        async with Uplink(*live.address, SecretCredentials("cam", secret)) as uplink:
            sent = await uplink.send(
                DATA, NAME, sha256=sha256, metadata=FileMetadata("text/plain", "job-7", "Böot.log")
            )
        answer = (await live.http.post("/v1/token", {"device": "cam", "secret": secret})).json()
        assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
        scopes = ("--scope", "read", "--scope", "delete", "--scope", "admin")
        operator = (await command("token", "--operator", "--quiet", *scopes)).strip()
        other = (await command("token", "--subject", "other", "--quiet")).strip()
        yield World(live, sent, secret, str(answer["access_token"]), other, operator)


class TestStatus:
    async def test_it_shows_what_the_device_sent(self, world: World) -> None:
        for path in (f"/v1/files/{world.id}", PATH):
            for token in (world.cam, world.operator):
                status = (await world.get(path, token)).json()
                assert (status["id"], status["device"], status["name"]) == (world.id, "cam", NAME)
                assert (status["state"], status["size"]) == ("complete", len(DATA))
                assert status["next_expected_byte"] == len(DATA)
                assert status["digests"] == {
                    "crc32c": f"{crc32c(DATA):08x}",
                    "sha256": hashlib.sha256(DATA).hexdigest(),
                }
                assert status["metadata"] == {
                    "content_type": "text/plain",
                    "external_id": "job-7",
                    "original_name": "Böot.log",
                }

    async def test_it_follows_an_unfinished_upload(self, world: World) -> None:
        async with await Wire.admitted(world.live.address, world.cam) as wire:
            opened = await wire.open(1, open_request("under-way.bin", 100))
            wire.send(chunk(1, 50, b"x" * 10))
            assert (await wire.hear(frames.Ack, 1)).next_expected_byte == 0
            await wire.upload(1, 0, b"y" * 10)
            path = f"/v1/files/{opened.upload_id:016x}"
            status = (await world.get(path)).json()
            assert (status["state"], status["size"], status["next_expected_byte"]) == ("receiving", 100, 10)
            assert status["ranges"] == [{"start": 0, "end": 10}, {"start": 50, "end": 60}]
            assert status["expires"] is not None
            answer = await world.get(f"{path}/content")
            assert (answer.status, answer.name) == (409, "NOT_COMPLETE")
            # The operator cancels it, and the device gets an error.
            assert (await world.live.http.request("DELETE", path, token=world.operator)).status == 204
            assert (await wire.hear(frames.Error, 1)).code == 0x0222
        assert (await world.get(path)).json()["state"] == "deleted"


class TestList:
    async def test_a_device_sees_its_own_files_and_an_operator_sees_all(self, world: World) -> None:
        async with Uplink(*world.live.address, TokenCredentials(world.other)) as uplink:
            await uplink.send(b"others", "a.txt")
        for token, expected in ((world.cam, {"cam"}), (world.other, {"other"}), (world.operator, {"cam", "other"})):
            files = (await world.get("/v1/files?state=complete", token)).json()["files"]
            assert isinstance(files, list)
            assert {file["device"] for file in files} == expected

    async def test_pages_filters_and_prefixes(self, world: World) -> None:
        async with Uplink(*world.live.address, TokenCredentials(world.other)) as uplink:
            for number in range(5):
                await uplink.send(b"x" * number, f"pages/{number}")
        seen: list[str] = []
        path = "/v1/files?limit=2&device=other&prefix=pages%2F"
        cursor: object = ""
        while cursor is not None:
            page = (await world.get(path + (f"&cursor={cursor}" if cursor else ""))).json()
            assert isinstance(page["files"], list)
            assert len(page["files"]) <= 2
            seen += [file["name"] for file in page["files"]]
            cursor = page["next_cursor"]
        assert seen == [f"pages/{number}" for number in (4, 3, 2, 1, 0)]


class TestDownload:
    async def test_it_returns_the_same_bytes_and_their_digest(self, world: World) -> None:
        answer = await world.get(f"{PATH}/content", world.cam)
        assert (answer.status, zlib.crc32(answer.body)) == (200, zlib.crc32(DATA))
        assert "sha-256=:" in answer.headers["Repr-Digest"]
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.headers["Content-Disposition"].startswith("attachment;")

    @pytest.mark.parametrize(
        ("asked", "start", "end"),
        [("0-0", 0, 1), ("1000000-2000000", 1_000_000, 2_000_001), ("-5", len(DATA) - 5, len(DATA))],
    )
    async def test_one_range(self, world: World, asked: str, start: int, end: int) -> None:
        answer = await world.get(f"/v1/files/{world.id}/content", Range=f"bytes={asked}")
        assert (answer.status, answer.body) == (206, DATA[start:end])
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(DATA)}"

    async def test_several_ranges(self, world: World) -> None:
        answer = await world.get(f"/v1/files/{world.id}/content", Range="bytes=0-9,100000-100099,-7")
        assert answer.status == 206
        message = message_from_bytes(f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode() + answer.body)
        parts = [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]
        assert parts == [DATA[:10], DATA[100_000:100_100], DATA[-7:]]

    async def test_an_unsatisfiable_range(self, world: World) -> None:
        answer = await world.get(f"/v1/files/{world.id}/content", Range=f"bytes={len(DATA)}-")
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")

    async def test_if_range_matches_only_the_same_file(self, world: World) -> None:
        path = f"/v1/files/{world.id}/content"
        etag = (await world.get(path)).headers["ETag"]
        assert (await world.get(path, Range="bytes=0-9", If_Range=etag)).status == 206
        for stale in ('"another"', f"W/{etag}", formatdate(0, usegmt=True)):
            assert (await world.get(path, Range="bytes=0-9", If_Range=stale)).status == 200
        assert (await world.get(path, If_None_Match=etag)).status == 304

    async def test_an_empty_file(self, world: World) -> None:
        async with Uplink(*world.live.address, TokenCredentials(world.other)) as uplink:
            sent = await uplink.send(b"", "empty")
        answer = await world.get(f"/v1/files/{sent.upload_id:016x}/content")
        assert (answer.status, answer.body) == (200, b"")

    async def test_a_replaced_file_is_served_with_its_new_content(self, world: World) -> None:
        path = "/v1/devices/other/files/twice/content"
        async with Uplink(*world.live.address, TokenCredentials(world.other)) as uplink:
            await uplink.send(b"one", "twice", tag=b"1")
            old = await world.get(path)
            await uplink.send(b"another", "twice", tag=b"2", replace=True)
        new = await world.get(path, Range="bytes=0-1", If_Range=old.headers["ETag"])
        assert (old.body, new.status, new.body) == (b"one", 200, b"another")


class TestRights:
    async def test_no_device_reaches_another_devices_file(self, world: World) -> None:
        for path in (f"/v1/files/{world.id}", f"/v1/files/{world.id}/content", PATH, f"{PATH}/content"):
            answer = await world.get(path, world.other)
            assert (answer.status, answer.name) == (404, "RESOURCE_UNKNOWN")
        answer = await world.live.http.request("DELETE", f"/v1/files/{world.id}", token=world.other)
        assert answer.status == 404
        async with await Wire.admitted(world.live.address, world.other) as wire:
            wire.say(frames.Query(NAME), 1)
            assert (await wire.hear(frames.Status, 1)).upload_id == 0
        assert (await world.get(f"/v1/files/{world.id}")).json()["state"] == "complete"

    async def test_another_tenant_sees_nothing(self, world: World) -> None:
        token = world.live.token("boss", role="operator", scope="read delete admin", tenant="rival")
        assert (await world.get("/v1/files", token)).json()["files"] == []
        assert (await world.get(f"/v1/files/{world.id}", token)).status == 404
        assert (await world.live.http.request("DELETE", f"/v1/files/{world.id}", token=token)).status == 404

    async def test_without_a_token_everything_is_refused(self, world: World) -> None:
        for path in ("/v1/files", f"/v1/files/{world.id}", f"/v1/files/{world.id}/content"):
            answer = await world.live.http.get(path, token=None)
            assert (answer.status, answer.name) == (401, "UNAUTHENTICATED")

    async def test_a_token_from_http_opens_the_device_port(self, world: World) -> None:
        async with await Wire.connect(world.live.address) as wire:
            wire.say(token_hello(world.cam))
            assert 0 < (await wire.hear(frames.Welcome)).authority_s <= 3600

    async def test_cleanup_is_for_operators(self, world: World) -> None:
        answer = await world.live.http.post("/v1/cleanup", {"dry_run": True}, token=world.operator)
        assert (answer.status, answer.json()["dry_run"]) == (200, True)
        answer = await world.live.http.post("/v1/cleanup", {"dry_run": True}, token=world.cam)
        assert (answer.status, answer.name) == (403, "FORBIDDEN")


class TestDelete:
    async def test_a_deleted_file_is_gone_for_devices_and_operators_and_on_disk(self, world: World) -> None:
        async with Uplink(*world.live.address, TokenCredentials(world.other)) as uplink:
            sent = await uplink.send(b"short-lived", "gone.txt")
        file_id = f"{sent.upload_id:016x}"
        stored = world.live.data_dir / "files" / file_id[-2:] / file_id
        assert stored.read_bytes() == b"short-lived"
        assert (await world.live.http.request("DELETE", f"/v1/files/{file_id}", token=world.other)).status == 204
        assert not stored.exists()
        answer = await world.get(f"/v1/files/{file_id}/content")
        assert (answer.status, answer.name) == (410, "GONE")
        assert (await world.live.http.request("DELETE", f"/v1/files/{file_id}", token=world.other)).status == 410
        async with await Wire.admitted(world.live.address, world.other) as wire:
            wire.say(open_request("gone.txt", 11), 1)
            assert (await wire.hear(frames.Error, 1)).code == 0x0222


class TestHealth:
    async def test_it_is_alive_and_ready_and_exposes_metrics(self, world: World) -> None:
        assert (await world.live.http.get("/healthz", token=None)).status == 200
        assert (await world.live.http.get("/readyz", token=None)).json() == {"status": "ready"}
        metrics = (await world.live.http.get("/metrics", token=None)).body.decode()
        assert "uplinkd_received_bytes_total" in metrics
        assert "cam" not in metrics
        assert NAME not in metrics
