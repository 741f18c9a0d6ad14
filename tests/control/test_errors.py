"""Every refusal in one shape."""

import re
from pathlib import Path

import pytest
from aiohttp import web

import control
from control.errors import STATUSES, RequestError, describe
from control.ports import RequestRefused
from protocol.errors import ErrorCode
from tests.support.fake_ports import World
from tests.support.openapi_contract import CheckingClient


def test_every_code_that_the_control_plane_raises_has_a_status() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(control.__file__).parent.glob("*.py"))
    raised = set(re.findall(r"RequestError\(\s*ErrorCode\.([A-Z_]+)", sources))
    assert raised <= {code.name for code in STATUSES}
    assert len(raised) > 5


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (RequestError(ErrorCode.NOT_COMPLETE, "arriving"), ErrorCode.NOT_COMPLETE, 409),
        (RequestRefused(ErrorCode.UNAVAILABLE, 507, "disk full"), ErrorCode.UNAVAILABLE, 507),
        (web.HTTPNotFound(), ErrorCode.RESOURCE_UNKNOWN, 404),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), ErrorCode.METHOD_NOT_ALLOWED, 405),
        (web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2), ErrorCode.REQUEST_TOO_LARGE, 413),
        (web.HTTPExpectationFailed(), ErrorCode.REQUEST_INVALID, 417),
        (web.HTTPInternalServerError(text="secret"), ErrorCode.INTERNAL, 500),
        (KeyError("secret"), ErrorCode.INTERNAL, 500),
    ],
)
def test_each_exception_becomes_the_registrys_error(error: Exception, code: ErrorCode, status: int) -> None:
    problem = describe(error)
    assert (problem.error, problem.status) == (code, status)
    assert "secret" not in problem.detail


async def test_a_problem_tells_code_name_action_and_what_happened(client: CheckingClient) -> None:
    answer = await client.get("/v1/files/0000000000000001?x=1", headers={"X-Request-Id": "mine"})
    assert answer.json() == {
        "type": "urn:uplinkd:error:resource_unknown",
        "title": "Resource unknown",
        "status": 404,
        "detail": "there is no such file within this token's reach: check the id or the name",
        "instance": "/v1/files/0000000000000001",
        "code": 0x0402,
        "name": "RESOURCE_UNKNOWN",
        "action": "give_up",
        "request_id": "mine",
    }
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/", 404, "RESOURCE_UNKNOWN"),
        ("GET", "/v2/files", 404, "RESOURCE_UNKNOWN"),
        ("GET", "/v1/files/", 404, "RESOURCE_UNKNOWN"),
        ("GET", "/v1/devices/cam-1/files/a/b", 404, "RESOURCE_UNKNOWN"),
        ("PUT", "/v1/files/0000000000000001", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/token", 405, "METHOD_NOT_ALLOWED"),
        ("PROPFIND", "/v1/files", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_what_the_framework_refuses_has_the_same_shape(
    client: CheckingClient, method: str, path: str, status: int, name: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status, answer.name) == (status, name)
    if status == 405:
        assert "GET" in answer.headers["Allow"] or "POST" in answer.headers["Allow"]


async def test_an_unforeseen_exception_is_a_500_that_tells_nothing_and_is_logged_once(
    client: CheckingClient, world: World
) -> None:
    world.health.fault = lambda: ZeroDivisionError("inner detail")
    answer = await client.get("/readyz", headers={"X-Request-Id": "abc"})
    assert (answer.status, answer.name) == (500, "INTERNAL")
    assert b"inner detail" not in answer.body
    [(request_id, route, error)] = world.log.failures
    assert (request_id, route, str(error)) == ("abc", "/readyz", "inner detail")


async def test_a_ports_connection_error_is_not_taken_for_the_clients(client: CheckingClient, world: World) -> None:
    world.health.fault = lambda: ConnectionRefusedError("database away")
    assert (await client.get("/readyz")).status == 500
    assert len(world.log.failures) == 1


def test_refused_reads_as_what_happened() -> None:
    assert str(RequestRefused(ErrorCode.GONE, 410, "file 1 is deleted")) == "file 1 is deleted"
