"""Content over HTTP, as RFC 9110 has it."""

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from email import message_from_bytes

import pytest
from aiohttp import ClientSession
from yarl import URL

from control.app import Options
from control.download import Delivery, DownloadLimits
from control.listener import ControlServer
from control.payload import SMALL_BYTES
from daemon.catalog.records import State, Upload
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_ports import FakeContent, World
from tests.support.openapi_contract import Answer, CheckingClient
from tests.support.waiting import until

SMALL = bytes(range(256)) * 40
LARGE = bytes(range(251)) * 20_000


def content_of(file: Upload) -> str:
    return f"/v1/files/{file.id:016x}/content"


def parts_of(answer: Answer) -> list[tuple[str, object]]:
    message = message_from_bytes(f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode() + answer.body)
    parts = [part for part in message.walk() if not part.is_multipart()]
    return [(str(part["Content-Range"]), part.get_payload(decode=True)) for part in parts]


@pytest.mark.parametrize("data", [b"", b"x", SMALL, LARGE, LARGE[:SMALL_BYTES], LARGE[: SMALL_BYTES + 1]])
async def test_a_complete_file_is_served_whole(client: CheckingClient, world: World, data: bytes) -> None:
    file = world.put(data)
    answer = await client.get(content_of(file))
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["Content-Length"] == str(len(data))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert world.contents.open_count == 0


async def test_an_empty_file_has_nothing_to_open(client: CheckingClient, world: World) -> None:
    file = world.put(b"")
    del world.contents.data[file.id]
    assert (await client.get(content_of(file))).status == 200


async def test_a_small_body_costs_one_read(client: CheckingClient, world: World) -> None:
    file = world.put(LARGE)
    await client.get(content_of(file), headers={"Range": "bytes=100-65635"})
    assert world.contents.reads == [(100, 65536)]


@pytest.mark.parametrize("data", [b"", SMALL, LARGE])
async def test_head_is_get_without_the_body(client: CheckingClient, world: World, data: bytes) -> None:
    file = world.put(data)
    for path in [content_of(file), "/v1/devices/cam-1/files/log.bin/content"]:
        get = await client.get(path)
        head = await client.request("HEAD", path, token="operator", headers={"Range": "bytes=0-1"})
        assert (head.status, head.body) == (200, b"")
        varying = {"Date", "X-Request-ID"}
        assert {k: v for k, v in head.headers.items() if k not in varying} == {
            k: v for k, v in get.headers.items() if k not in varying
        }


@pytest.mark.parametrize(
    ("asked", "start", "end"), [("0-0", 0, 1), ("500-", 500, 10240), ("-500", 9740, 10240), ("0-99999", 0, 10240)]
)
async def test_one_range(client: CheckingClient, world: World, asked: str, start: int, end: int) -> None:
    file = world.put(SMALL)
    answer = await client.get(content_of(file), headers={"Range": f"bytes={asked}"})
    assert (answer.status, answer.body) == (206, SMALL[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/10240"
    assert answer.headers["Content-Length"] == str(end - start)


async def test_a_large_range_is_streamed(client: CheckingClient, world: World) -> None:
    file = world.put(LARGE)
    answer = await client.get(content_of(file), headers={"Range": "bytes=7-"})
    assert (answer.status, answer.body) == (206, LARGE[7:])


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_several_ranges(client: CheckingClient, world: World, data: bytes) -> None:
    file = world.alter(world.put(data), content_type="text/plain")
    last = len(data) - 1
    answer = await client.get(content_of(file), headers={"Range": "bytes=5000-,0-9"})
    assert answer.status == 206
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert "Content-Range" not in answer.headers
    assert parts_of(answer) == [
        (f"bytes 5000-{last}/{len(data)}", data[5000:]),
        (f"bytes 0-9/{len(data)}", data[:10]),
    ]


async def test_several_ranges_that_meet_are_one(client: CheckingClient, world: World) -> None:
    file = world.put(SMALL)
    answer = await client.get(content_of(file), headers={"Range": "bytes=0-9,10-19"})
    assert answer.headers["Content-Range"] == "bytes 0-19/10240"


@pytest.mark.parametrize("asked", ["10240-", "-0", ",".join(f"{n}-{n}" for n in range(0, 6500, 100))])
async def test_what_cannot_be_satisfied_is_416_with_the_size(client: CheckingClient, world: World, asked: str) -> None:
    file = world.put(SMALL)
    answer = await client.get(content_of(file), headers={"Range": f"bytes={asked}"})
    assert (answer.status, answer.name) == (416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["Content-Range"] == "bytes */10240"


@pytest.mark.parametrize("asked", ["bytes=5-4", "lines=1-2", "bytes=x"])
async def test_a_range_that_is_none_is_ignored(client: CheckingClient, world: World, asked: str) -> None:
    assert (await client.get(content_of(world.put(SMALL)), headers={"Range": asked})).status == 200


async def test_if_range_guards_a_resume(client: CheckingClient, world: World) -> None:
    file = world.put(SMALL)
    by_id, by_name = content_of(file), "/v1/devices/cam-1/files/log.bin/content"
    described = (await client.get(by_id)).headers

    async def status(path: str, if_range: str) -> int:
        return (await client.get(path, headers={"Range": "bytes=10-", "If-Range": if_range})).status

    assert await status(by_id, described["ETag"]) == 206
    assert await status(by_name, described["ETag"]) == 206
    assert await status(by_id, '"stale"') == 200
    assert await status(by_id, f"W/{described['ETag']}") == 200
    assert await status(by_id, described["Last-Modified"]) == 206
    assert await status(by_name, described["Last-Modified"]) == 200
    assert await status(by_id, "Sun, 06 Nov 1994 08:49:37 GMT") == 200


async def test_conditions(client: CheckingClient, world: World) -> None:
    path = content_of(world.put(SMALL))
    etag = (await client.get(path)).headers["ETag"]
    unchanged = await client.get(path, headers={"If-None-Match": etag, "Range": "bytes=0-1"})
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert unchanged.headers["ETag"] == etag
    assert (await client.request("HEAD", path, token="operator", headers={"If-None-Match": etag})).status == 304
    failed = await client.get(path, headers={"If-Match": '"other"'})
    assert (failed.status, failed.name, failed.headers["ETag"]) == (412, "PRECONDITION_FAILED", etag)
    assert len(world.contents.reads) == 1, "a condition that ends the request costs no read"


@pytest.mark.parametrize("state", [State.RECEIVING, State.PARTIAL, State.REJECTED])
async def test_what_is_not_complete_is_not_served(client: CheckingClient, world: World, state: State) -> None:
    file = world.alter(world.put(SMALL), state=state)
    for path in [content_of(file), "/v1/devices/cam-1/files/log.bin/content"]:
        for headers in [{}, {"Range": "bytes=0-1"}]:
            answer = await client.get(path, headers=headers)
            assert (answer.status, answer.name) == (409, "NOT_COMPLETE")
            assert state in str(answer.json()["detail"])
    assert (await client.request("HEAD", content_of(file), token="operator")).status == 409
    assert (world.contents.opened, world.contents.reads) == (0, [])


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_bytes_that_go_between_lookup_and_read_are_gone(
    client: CheckingClient, world: World, data: bytes
) -> None:
    file = world.put(data)
    del world.contents.data[file.id]
    answer = await client.get(content_of(file))
    assert (answer.status, answer.name) == (410, "GONE")


async def test_a_small_file_that_cannot_be_read_is_a_logged_500(client: CheckingClient, world: World) -> None:
    file = world.put(SMALL)
    world.contents.fail_at = 0
    answer = await client.get(content_of(file))
    assert (answer.status, answer.name) == (500, "INTERNAL")
    assert "Input/output" not in answer.body.decode()
    assert [str(error) for _, _, error in world.log.failures] == ["[Errno 5] Input/output error"]


async def test_a_large_file_that_fails_midway_is_cut_short_and_closed(base: URL, world: World) -> None:
    file = world.put(LARGE)
    world.contents.fail_at = 1_000_000
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(f"GET {content_of(file)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n".encode())
    got = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    _, _, body = got.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(LARGE)}".encode() in got
    assert len(body) < len(LARGE)
    assert LARGE.startswith(body), "no problem document may be glued to the file"
    await until(lambda: world.log.exchanges)
    assert world.contents.open_count == 0
    assert len(world.log.failures) == 1


async def test_a_client_that_leaves_midway_closes_the_content(base: URL, world: World) -> None:
    file = world.put(LARGE * 8)
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(f"GET {content_of(file)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n".encode())
    await reader.readexactly(1000)
    assert world.contents.open_count == 1
    writer.transport.abort()
    await until(lambda: world.contents.open_count == 0 and world.log.exchanges)
    assert world.log.exchanges[0].status == 499
    assert world.log.failures == []


async def test_a_file_shorter_than_the_catalog_says_is_cut_short_and_logged(base: URL, world: World) -> None:
    file = world.put(LARGE)
    world.contents.data[file.id] = LARGE[:-1]
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(f"GET {content_of(file)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n".encode())
    assert (await reader.read(-1)).endswith(LARGE[:-1])
    writer.close()
    await until(lambda: world.log.exchanges)
    assert "run `uplinkd verify`" in str(world.log.failures[0][2])


class SlowClient:
    """Reads a little now and then. What it reads of FILLER is not part of the answer."""

    FILLER = b"\xff"

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.setblocking(False)
        self.is_over = False
        self._taken: list[bytes] = []

    @property
    def answer(self) -> bytes:
        return b"".join(self._taken).replace(self.FILLER, b"")

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._taken.append(self._socket.recv(256 * 1024))
            self.is_over = not self._taken[-1]

    async def take_all(self) -> None:
        while not self.is_over:
            self.take()
            await asyncio.sleep(0.001)

    def let_write(self, fd: int) -> None:
        """Take until the socket of the other side, which is full, has room: before its transport hears of it."""
        while not select.select([], [fd], [], 0)[1]:
            self.take()

    def fill(self, fd: int) -> None:
        """Let nothing more fit into the socket of the other side."""
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, self.FILLER * 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, self.FILLER)


async def test_parts_wait_until_what_stands_before_them_is_out(
    base: URL, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes through the transport, which keeps it while the socket is full; the parts go to the socket itself."""
    file = world.put(LARGE)
    spans = [(start, start + 50_000) for start in range(0, 8 * 60_000, 60_000)]
    asked = ",".join(f"{start}-{end - 1}" for start, end in spans)
    with socket.create_connection((str(base.host), base.port or 0)) as connected:
        client = SlowClient(connected)
        plain = FakeContent.send

        async def send(self: FakeContent, socket_fd: int, offset: int, count: int) -> AsyncGenerator[int, None]:
            client.let_write(socket_fd)
            async with aclosing(plain(self, socket_fd, offset, count)) as steps:
                async for step in steps:
                    yield step
            client.fill(socket_fd)

        monkeypatch.setattr(FakeContent, "send", send)
        connected.sendall(
            f"GET {content_of(file)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n"
            f"Range: bytes={asked}\r\nConnection: close\r\n\r\n".encode()
        )
        await asyncio.wait_for(client.take_all(), DEADLINE_S)
    head, _, body = client.answer.partition(b"\r\n\r\n")
    message = message_from_bytes(head.partition(b"\r\n")[2] + b"\r\n\r\n" + body)
    parts = [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]
    assert parts == [LARGE[start:end] for start, end in spans]


class TestFewStreams:
    """A server that streams three downloads at a time."""

    @pytest.fixture
    def options(self) -> Options:
        return Options(delivery=Delivery(limits=DownloadLimits(streams_max=3)))

    async def test_one_client_gets_no_more_than_are_free_and_another_is_served(
        self, client: CheckingClient, base: URL, world: World
    ) -> None:
        file = world.put(LARGE * 8)
        writers = [await stalled(base, file) for _ in range(2)]
        await until(lambda: world.contents.open_count == 2)
        refused = await client.get(content_of(file))
        assert (refused.status, refused.name, refused.headers["Retry-After"]) == (503, "UNAVAILABLE", "1")
        assert "2 of them yours" in str(refused.json()["detail"])
        assert (await client.get(content_of(file), headers={"Range": "bytes=0-9"})).status == 206
        assert (await client.get(content_of(file), token="reader")).body == LARGE * 8
        for writer in writers:
            writer.transport.abort()
        await until(lambda: world.contents.open_count == 0)
        assert (await client.get(content_of(file))).body == LARGE * 8


async def stalled(base: URL, file: Upload) -> asyncio.StreamWriter:
    """Begin a download of the operator's and read nothing."""
    _, writer = await asyncio.open_connection(base.host, base.port, limit=1024)
    writer.write(f"GET {content_of(file)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n".encode())
    return writer


async def test_a_download_whose_client_is_cut_ends_at_once(base: URL, server: ControlServer, world: World) -> None:
    writer = await stalled(base, world.put(LARGE * 8))
    await until(lambda: world.contents.open_count == 1)
    server.cut_all()
    await until(lambda: world.contents.open_count == 0)
    await until(lambda: world.log.exchanges)
    assert world.log.exchanges[0].status == 499
    writer.close()


async def test_many_clients_at_once_each_get_their_own_bytes(
    client: CheckingClient, server: ControlServer, world: World
) -> None:
    file = world.put(LARGE)
    starts = range(0, 4_000_000, 500_000)
    answers = await asyncio.gather(
        *(client.get(content_of(file), headers={"Range": f"bytes={start}-{start + 299_999}"}) for start in starts)
    )
    assert [answer.body for answer in answers] == [LARGE[start : start + 300_000] for start in starts]


async def test_a_pipelined_connection_stays_usable(base: URL, world: World) -> None:
    file = world.put(LARGE)
    async with ClientSession() as session:
        for _ in range(3):
            async with session.get(
                base.with_path(content_of(file)), headers={"Authorization": "Bearer operator"}
            ) as response:
                assert await response.read() == LARGE
    assert len({exchange.remote for exchange in world.log.exchanges}) == 1
