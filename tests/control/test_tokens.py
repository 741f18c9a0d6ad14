"""POST /v1/token."""

import base64

import pytest

from tests.support.fake_ports import World
from tests.support.openapi_contract import CheckingClient

SECRET = "c2VjcmV0LW9mLWNhbS0x"


@pytest.fixture(autouse=True)
def enrolled(world: World) -> None:
    world.token_exchange.secrets = {("default", "cam:1"): SECRET, ("acme", "cam:1"): "other"}


def basic(credentials: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


async def test_a_json_body_is_exchanged(client: CheckingClient) -> None:
    answer = await client.post("/v1/token", {"device": "cam:1", "secret": SECRET})
    assert answer.json() == {"access_token": "token-of-cam:1", "token_type": "Bearer", "expires_in": 3600}
    assert answer.headers["Cache-Control"] == "no-store"


async def test_basic_credentials_are_parted_at_the_last_colon(client: CheckingClient) -> None:
    answer = await client.request("POST", "/v1/token", headers=basic(f"cam:1:{SECRET}"))
    assert answer.json()["access_token"] == "token-of-cam:1"


async def test_the_tenant_is_in_the_body_either_way(client: CheckingClient) -> None:
    in_body = await client.post("/v1/token", {"tenant": "acme", "device": "cam:1", "secret": "other"})
    by_basic = await client.request("POST", "/v1/token", headers=basic("cam:1:other"), body=b'{"tenant": "acme"}')
    assert in_body.status == by_basic.status == 200
    assert (await client.post("/v1/token", {"device": "cam:1", "secret": "other"})).status == 401


async def test_a_wrong_secret_is_401_and_never_repeated_nor_logged(client: CheckingClient, world: World) -> None:
    answer = await client.post("/v1/token", {"device": "cam:1", "secret": "hunter2-hunter2"})
    assert (answer.status, answer.name) == (401, "UNAUTHENTICATED")
    assert b"hunter2" not in answer.body
    assert "hunter2" not in repr(world.log)


async def test_too_many_tries_say_when_to_come_again(client: CheckingClient, world: World) -> None:
    world.token_exchange.busy = True
    answer = await client.post("/v1/token", {"device": "cam:1", "secret": SECRET})
    assert (answer.status, answer.name, answer.headers["Retry-After"]) == (429, "RATE_LIMITED", "7")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"null", b'"x"', b"\xff", b'{"device": "cam:1"}', b'{"device": 5, "secret": "x"}',
     b'{"device": "", "secret": "x"}', b'{"device": "cam:1", "secret": "x", "tenant": 5}',
     b'{"device": "cam:1", "secret": "x", "admin": true}', b"[" * 10_000],
)  # fmt: skip
async def test_a_body_that_is_not_understood_is_400(client: CheckingClient, body: bytes) -> None:
    answer = await client.request("POST", "/v1/token", body=body)
    assert (answer.status, answer.name) == (400, "REQUEST_INVALID")


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic eA==", "Basic /w==", "Digest x", "Basic Og=="])
async def test_a_header_that_is_not_basic_is_400(client: CheckingClient, header: str) -> None:
    answer = await client.request("POST", "/v1/token", headers={"Authorization": header})
    assert (answer.status, answer.name) == (400, "REQUEST_INVALID")


async def test_credentials_in_both_places_are_refused(client: CheckingClient) -> None:
    answer = await client.request(
        "POST", "/v1/token", headers=basic(f"cam:1:{SECRET}"), body=b'{"device": "cam:1", "secret": "x"}'
    )
    assert answer.status == 400
