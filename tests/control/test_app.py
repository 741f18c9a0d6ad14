"""The application against its description: neither has what the other lacks."""

import re

import pytest
from openapi_core.exceptions import OpenAPIError
from yarl import URL

from control.app import Options, make_app
from tests.support.fake_ports import World
from tests.support.openapi_contract import SPEC, Answer, CheckingClient, check

METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}


def test_every_route_is_described_and_everything_described_is_routed(world: World) -> None:
    app = make_app(world.ports(), Options())
    routed = {
        (route.method.lower(), route.resource.canonical) for route in app.router.routes() if route.resource is not None
    }
    described = {(method, path) for path, item in SPEC["paths"].items() for method in item.keys() & METHODS}
    assert routed == described


def test_operation_ids_are_unique() -> None:
    ids = [item[method]["operationId"] for item in SPEC["paths"].values() for method in item.keys() & METHODS]
    assert len(ids) == len(set(ids))


def test_nothing_is_open_that_should_ask_for_a_token() -> None:
    open_paths = {
        path
        for path, item in SPEC["paths"].items()
        for method in item.keys() & METHODS
        if {} in item[method].get("security", SPEC["security"])
    }
    assert open_paths == {"/v1/token", "/v1/openapi.yaml", "/healthz", "/readyz", "/metrics"}


async def test_the_judge_condemns(client: CheckingClient) -> None:
    """A checking client that accepts anything would prove nothing."""
    answer = await client.get("/healthz")
    url = URL(f"{client.base}/healthz")
    check("GET", url, {}, b"", answer)
    for wrong in [
        Answer(200, answer.headers, b'{"status": "fine"}'),
        Answer(200, answer.headers, b'{"status": "ok", "more": 1}'),
    ]:
        with pytest.raises(OpenAPIError):
            check("GET", url, {}, b"", wrong)
    with pytest.raises(AssertionError):
        check("GET", url, {}, b"", Answer(500, answer.headers, answer.body))


def test_every_schema_that_is_declared_is_used() -> None:
    text = re.findall(r"'#/components/(\w+/\w+)'", str(SPEC))
    declared = {
        f"{kind}/{name}"
        for kind, members in SPEC["components"].items()
        if kind != "securitySchemes"
        for name in members
    }
    assert declared == set(text)
