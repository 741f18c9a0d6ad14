"""Listening, bytes that are no request, and the end."""

import asyncio
import socket
from http.client import parse_headers
from io import BytesIO

import pytest
from aiohttp import ClientSession
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from control import connections as connections_module
from control import listener as server_module
from control.app import Options, make_app
from control.connections import ConnectionLimits
from control.listener import ControlServer, ListenAddress, serve
from daemon.adapters.sockets import socket_state
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_ports import World
from tests.support.openapi_contract import Answer, check_problem
from tests.support.waiting import until


async def exchange(base: URL, sent: bytes) -> Answer:
    """What comes back until the server closes."""
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(sent)
    got = await reader.read(-1)
    writer.close()
    head, _, body = got.partition(b"\r\n\r\n")
    status_line, _, fields = head.partition(b"\r\n")
    headers = CIMultiDict(parse_headers(BytesIO(fields + b"\r\n\r\n")).items())
    return Answer(int(status_line.split()[1]), CIMultiDictProxy(headers), body)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["tls", "short", "version", "length", "long-field", "smuggling"],
)
async def test_bytes_that_are_no_request_get_a_problem(base: URL, world: World, sent: bytes) -> None:
    answer = await exchange(base, sent)
    assert answer.status == 400
    check_problem(answer)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    [seen] = world.http_metrics.seen
    assert (seen.route, seen.status, seen.error) == ("unmatched", 400, "REQUEST_INVALID")
    assert world.log.failures == []


async def test_an_expectation_that_cannot_be_met_gets_a_problem(base: URL) -> None:
    answer = await exchange(base, b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: miracle\r\nConnection: close\r\n\r\n")
    assert answer.status == 417
    check_problem(answer)


async def test_100_continue_is_answered(base: URL) -> None:
    head = (
        b"POST /v1/token HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    )
    answer = await exchange(base, head + b"{}")
    assert answer.status == 100


async def test_a_connection_that_asks_for_nothing_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_TIMEOUT_S", 0.05)
    running = await serve(make_app(world.ports(), Options()), [ListenAddress("127.0.0.1", 0)], drain_timeout_s=1)
    base = URL.build(scheme="http", host="127.0.0.1", port=running.addresses[0][1])
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHos")
    assert await reader.read(-1) == b""
    writer.close()
    await running.close()


async def test_it_listens_on_sockets_that_are_handed_over(world: World) -> None:
    given = socket.socket()
    given.bind(("127.0.0.1", 0))
    running = await serve(make_app(world.ports(), Options()), [given, ListenAddress("127.0.0.1", 0)], drain_timeout_s=1)
    assert running.addresses[0] == given.getsockname()
    async with ClientSession() as session:
        for host, port in running.addresses:
            async with session.get(f"http://{host}:{port}/healthz") as response:
                assert response.status == 200
    await running.close()


async def test_an_address_in_use_is_an_error_that_leaves_nothing_open(server: ControlServer, world: World) -> None:
    host, port = server.addresses[0]
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    with pytest.raises(OSError, match="in use"):
        await serve(make_app(world.ports(), Options()), [free, ListenAddress(host, port)], drain_timeout_s=1)
    assert free.fileno() == -1


async def test_closing_lets_a_download_end_and_takes_no_new_one(world: World) -> None:
    data = bytes(range(256)) * 80_000
    file = world.put(data)
    running = await serve(make_app(world.ports(), Options()), [ListenAddress("127.0.0.1", 0)], drain_timeout_s=20)
    host, port = running.addresses[0]
    reader, writer = await asyncio.open_connection(host, port, limit=65536)
    path = f"/v1/files/{file.id:016x}/content"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    closing = asyncio.create_task(running.close())
    await until(lambda: not running.addresses)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
    assert await reader.read(-1) == data
    writer.close()
    await closing
    assert world.contents.open_count == 0


async def test_a_download_that_outlasts_the_drain_is_cut_and_closed(world: World) -> None:
    file = world.put(bytes(20_000_000))
    running = await serve(make_app(world.ports(), Options()), [ListenAddress("127.0.0.1", 0)], drain_timeout_s=0.05)
    host, port = running.addresses[0]
    _, writer = await asyncio.open_connection(host, port, limit=1024)
    path = f"/v1/files/{file.id:016x}/content"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n".encode())
    await until(lambda: world.contents.open_count == 1)
    await running.close()
    await until(lambda: world.contents.open_count == 0)
    writer.close()


async def test_a_client_that_pipelines_and_reads_nothing_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "CHECK_S", 0.01)
    file = world.put(bytes(200_000))
    running = await serve(
        make_app(world.ports(), Options()),
        [ListenAddress("127.0.0.1", 0)],
        drain_timeout_s=0.05,
        limits=ConnectionLimits(rate_window_s=0.1),
        socket_state=socket_state,
    )
    host, port = running.addresses[0]
    _, writer = await asyncio.open_connection(host, port, limit=1024)
    request = (
        f"GET /v1/files/{file.id:016x}/content HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n"
    ).encode()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ConnectionError):
            while True:
                writer.write(100 * request)
                await writer.drain()
    await running.close()
    assert world.contents.open_count == 0


async def test_clients_that_read_nothing_do_not_keep_it_from_closing(world: World) -> None:
    file = world.put(bytes(250_000))
    running = await serve(make_app(world.ports(), Options()), [ListenAddress("127.0.0.1", 0)], drain_timeout_s=0.05)
    host, port = running.addresses[0]
    request = (
        f"GET /v1/files/{file.id:016x}/content HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n"
    ).encode()
    writers = []
    for _ in range(5):
        _, writer = await asyncio.open_connection(host, port, limit=1024)
        writer.write(50 * request)
        writers.append(writer)
    await until(lambda: len(world.log.exchanges) > 20)
    await asyncio.wait_for(running.close(), DEADLINE_S)
    for writer in writers:
        writer.close()


async def test_a_connection_too_many_closes_the_longest_idle_one(world: World) -> None:
    limits = ConnectionLimits(connections_max=2)
    app = make_app(world.ports(), Options())
    running = await serve(app, [ListenAddress("127.0.0.1", 0)], drain_timeout_s=0.05, limits=limits)
    host, port = running.addresses[0]
    pairs = []
    for _ in range(3):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        pairs.append((reader, writer))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await pairs[0][0].readuntil(b"never sent")
    for _, writer in pairs:
        writer.close()
    await running.close()


async def test_a_connection_too_many_is_refused_while_all_are_busy(world: World) -> None:
    file = world.put(bytes(20_000_000))
    limits = ConnectionLimits(connections_max=1)
    app = make_app(world.ports(), Options())
    running = await serve(app, [ListenAddress("127.0.0.1", 0)], drain_timeout_s=0.05, limits=limits)
    host, port = running.addresses[0]
    _, busy = await asyncio.open_connection(host, port, limit=1024)
    path = f"/v1/files/{file.id:016x}/content"
    busy.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n".encode())
    await until(lambda: world.contents.open_count == 1)
    reader, writer = await asyncio.open_connection(host, port)
    answer = await reader.read(-1)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"Retry-After: 1" in answer
    for each in (busy, writer):
        each.close()
    await running.close()
