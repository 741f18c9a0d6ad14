"""Bodies are small, prompt and understood, or refused."""

import asyncio

import pytest
from yarl import URL

from control import bodies
from control.app import BODY_BYTES_MAX
from tests.support.fake_ports import World
from tests.support.openapi_contract import CheckingClient


async def test_a_body_beyond_the_bound_is_413(client: CheckingClient) -> None:
    answer = await client.request("POST", "/v1/token", body=b" " * (BODY_BYTES_MAX + 1))
    assert (answer.status, answer.name) == (413, "REQUEST_TOO_LARGE")


async def test_a_body_that_does_not_arrive_is_given_up(
    base: URL, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(b"POST /v1/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"problem+json" in head
    writer.close()
