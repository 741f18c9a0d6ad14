"""Who may do what."""

import pytest

from control.access import TOKEN_BYTES_MAX
from control.ports import Permission
from tests.support.fake_ports import World
from tests.support.openapi_contract import CheckingClient


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic b3BlcmF0b3I6eA==",
        "operator",
        "Bearer nobody",
        f"Bearer {'x' * (TOKEN_BYTES_MAX + 1)}",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files"),
        ("GET", "/v1/files/0000000000001001"),
        ("GET", "/v1/files/0000000000001001/content"),
        ("GET", "/v1/devices/cam-1/files/log.bin"),
        ("GET", "/v1/devices/cam-1/files/log.bin/content"),
        ("DELETE", "/v1/files/0000000000001001"),
        ("POST", "/v1/cleanup"),
    ],
)
async def test_no_route_opens_without_a_token_that_holds(
    client: CheckingClient, world: World, method: str, path: str, header: str
) -> None:
    world.put(b"secret")
    answer = await client.request(method, path, headers={"Authorization": header})
    assert (answer.status, answer.name) == (401, "UNAUTHENTICATED")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert b"secret" not in answer.body
    assert world.uploads.deleted == []
    assert world.cleaner.runs == []


async def test_a_missing_header_is_refused_and_the_scheme_is_case_insensitive(client: CheckingClient) -> None:
    assert (await client.get("/v1/files", token=None)).status == 401
    assert (await client.get("/v1/files", token=None, headers={"Authorization": "bearer operator"})).status == 200


@pytest.mark.parametrize("is_operator", [False, True], ids=["device", "operator"])
@pytest.mark.parametrize("permissions", [{*Permission}, *({each} for each in Permission), set()])
async def test_what_each_permission_grants(
    client: CheckingClient, world: World, permissions: set[Permission], is_operator: bool
) -> None:
    world.admit("someone", *permissions, is_operator=is_operator)
    file = world.put(b"x", device="someone")
    read = await client.get(f"/v1/files/{file.id:016x}/content", token="someone")
    delete = await client.request("DELETE", f"/v1/files/{file.id:016x}", token="someone")
    cleanup = await client.post("/v1/cleanup", {}, token="someone")
    assert [read.status, delete.status, cleanup.status] == [
        200 if Permission.READ in permissions else 403,
        204 if Permission.DELETE in permissions else 403,
        200 if Permission.ADMIN in permissions else 403,
    ]
