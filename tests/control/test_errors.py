"""Every refusal in one shape."""

import pytest
from aiohttp import web

from control.errors import STATUSES, Problems, RequestError
from control.ports import Failure, Refused
from tests.support.fake_ports import ERRORS, World, refusal
from tests.support.openapi_contract import CheckingClient


def test_every_failure_has_a_status() -> None:
    assert STATUSES.keys() == set(Failure)


def test_a_registry_that_lacks_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="gone, internal"):
        Problems({failure: info for failure, info in ERRORS.items() if failure not in {Failure.GONE, Failure.INTERNAL}})


@pytest.mark.parametrize(
    ("error", "failure", "status"),
    [
        (RequestError(Failure.NOT_COMPLETE, "arriving"), Failure.NOT_COMPLETE, 409),
        (refusal(Failure.UNAVAILABLE, 507, "disk full"), Failure.UNAVAILABLE, 507),
        (web.HTTPNotFound(), Failure.NOT_FOUND, 404),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), Failure.METHOD_NOT_ALLOWED, 405),
        (web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2), Failure.TOO_LARGE, 413),
        (web.HTTPExpectationFailed(), Failure.BAD_REQUEST, 417),
        (web.HTTPInternalServerError(text="secret"), Failure.INTERNAL, 500),
        (KeyError("secret"), Failure.INTERNAL, 500),
    ],
)
def test_each_exception_becomes_the_registrys_error(error: Exception, failure: Failure, status: int) -> None:
    problem = Problems(ERRORS).describe(error)
    assert (problem.error, problem.status) == (ERRORS[failure], status)
    assert "secret" not in problem.detail


async def test_a_problem_tells_code_name_action_and_what_happened(client: CheckingClient) -> None:
    answer = await client.get("/v1/files/0000000000000001?x=1", headers={"X-Request-Id": "mine"})
    info = ERRORS[Failure.NOT_FOUND]
    assert answer.json() == {
        "type": "urn:uplinkd:error:not_found",
        "title": "Not found",
        "status": 404,
        "detail": "there is no such file within this token's reach: check the id or the name",
        "instance": "/v1/files/0000000000000001",
        "code": info.code,
        "name": "NOT_FOUND",
        "action": info.action,
        "request_id": "mine",
    }
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/v2/files", 404, "NOT_FOUND"),
        ("GET", "/v1/files/", 404, "NOT_FOUND"),
        ("GET", "/v1/devices/cam-1/files/a/b", 404, "NOT_FOUND"),
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
    assert str(Refused(ERRORS[Failure.GONE], 410, "file 1 is deleted")) == "file 1 is deleted"
