"""What surrounds every request."""

import asyncio

import pytest
from yarl import URL

from tests.support.fake_ports import World
from tests.support.openapi_contract import CheckingClient
from tests.support.waiting import until


@pytest.mark.parametrize("sane", ["a", "A-b_c.9", "x" * 64])
async def test_a_sane_request_id_is_kept(client: CheckingClient, world: World, sane: str) -> None:
    answer = await client.get("/healthz", headers={"X-Request-Id": sane})
    assert answer.headers["X-Request-Id"] == sane
    assert world.log.exchanges[0].request_id == sane


@pytest.mark.parametrize("insane", ["", "x" * 65, "a b", 'a"b', "ü", "{}"])
async def test_any_other_is_replaced(client: CheckingClient, insane: str) -> None:
    answer = await client.get("/healthz", headers={"X-Request-Id": insane})
    assert answer.headers["X-Request-Id"] == "req-000001"


async def test_every_kind_of_answer_carries_id_and_security_headers(client: CheckingClient, world: World) -> None:
    file = world.put(b"x" * 300_000)
    path = f"/v1/files/{file.id:016x}/content"
    for answer in [
        await client.get("/healthz"),
        await client.get(path),
        await client.get(path, headers={"Range": "bytes=0-1"}),
        await client.get("/nowhere"),
        await client.request("DELETE", path, token="operator"),
    ]:
        assert answer.headers["X-Request-Id"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["Server"] == "uplinkd"


async def test_an_exchange_is_measured_by_its_routes_template(client: CheckingClient, world: World) -> None:
    file = world.put(b"0123456789")
    await client.get(f"/v1/files/{file.id:016x}/content")
    await client.get("/v1/devices/cam-1/files/log.bin")
    await client.get("/v1/files/0000000000000001")
    await client.get("/nowhere")
    await client.request("PROPFIND", "/v1/files")
    assert world.log.exchanges == world.http_metrics.seen
    seen = [(it.method, it.route, it.status, it.error, it.subject) for it in world.http_metrics.seen]
    assert seen == [
        ("GET", "/v1/files/{id}/content", 200, "", "operator"),
        ("GET", "/v1/devices/{device}/files/{name}", 200, "", "operator"),
        ("GET", "/v1/files/{id}", 404, "RESOURCE_UNKNOWN", "operator"),
        ("GET", "unmatched", 404, "RESOURCE_UNKNOWN", ""),
        ("other", "unmatched", 405, "METHOD_NOT_ALLOWED", ""),
    ]
    first = world.http_metrics.seen[0]
    assert first.path == f"/v1/files/{file.id:016x}/content"
    assert (first.sent_bytes, first.remote) == (10, "127.0.0.1")
    assert first.duration_s > 0


async def test_sent_bytes_are_those_of_the_body(client: CheckingClient, world: World) -> None:
    file = world.put(b"x" * 1_000_000)
    path = f"/v1/files/{file.id:016x}/content"
    await client.get(path)
    await client.request("HEAD", path, token="operator")
    problem = await client.get("/nowhere")
    assert [it.sent_bytes for it in world.http_metrics.seen] == [1_000_000, 0, len(problem.body)]


async def test_the_query_is_not_logged(client: CheckingClient, world: World) -> None:
    await client.get("/v1/files?prefix=confidential")
    assert "confidential" not in repr(world.log.exchanges)


async def test_a_client_that_left_is_no_fault_of_the_server(base: URL, world: World) -> None:
    _, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(b"POST /v1/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    await until(lambda: world.log.exchanges)
    assert [(it.status, it.error) for it in world.log.exchanges] == [(499, "")]
    assert world.log.failures == []


async def test_a_fault_is_logged_though_the_client_left(base: URL, world: World) -> None:
    world.health.gate = asyncio.Event()
    world.health.fault = lambda: ZeroDivisionError("inner detail")
    _, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: world.health.asked)
    writer.transport.abort()
    world.health.gate.set()
    await until(lambda: world.log.exchanges)
    assert [str(error) for _, _, error in world.log.failures] == ["inner detail"]
    assert len(world.log.exchanges) == 1
