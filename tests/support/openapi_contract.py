"""Checks every answer that a test gets against control/openapi.yaml."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import yaml
from aiohttp import ClientSession
from multidict import CIMultiDict, CIMultiDictProxy
from openapi_core import Config, OpenAPI
from openapi_core.templating.paths.exceptions import PathError
from openapi_core.testing import MockRequest, MockResponse
from yarl import URL

from control.operations import OPENAPI

SPEC = yaml.safe_load(OPENAPI.read_bytes())
_CONTRACT = OpenAPI.from_dict(
    SPEC, config=Config(extra_media_type_deserializers={"application/problem+json": json.loads})
)
_ANYWHERE = "http://anywhere"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> dict[str, object]:
        members = json.loads(self.body)
        assert isinstance(members, dict)
        return members

    @property
    def name(self) -> object:
        """The registry's name in a problem."""
        return self.json()["name"]


def check_problem(answer: Answer) -> None:
    """Check that a refusal has the one shape for all refusals."""
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    # Every operation's default response is a problem. Some answers, such as to an unknown path, belong to no operation.
    defaulting = MockRequest(_ANYWHERE, "get", "/v1/files")
    response = MockResponse(answer.body, 599, dict(answer.headers), "application/problem+json")
    _CONTRACT.validate_response(defaulting, response)
    members = answer.json()
    assert members["status"] == answer.status
    assert members["request_id"] == answer.headers["X-Request-Id"]


def check(method: str, url: URL, headers: Mapping[str, str], sent: bytes, answer: Answer) -> None:
    """Raise if the answer, or a request that succeeded, does not match the description."""
    request = MockRequest(
        str(url.origin()),
        method,
        url.raw_path,
        args={key: url.query.getall(key) for key in url.query},
        headers=dict(headers),
        data=sent,
    )
    content_type = answer.headers.get("Content-Type", "").partition(";")[0]
    # openapi-core takes an empty body for a missing one, but an empty file has an empty body.
    body = b"\0" if method == "GET" and answer.headers.get("Content-Length") == "0" else answer.body
    response = MockResponse(body, answer.status, dict(answer.headers), content_type)
    if answer.status >= 400 and method != "HEAD":
        check_problem(answer)
    try:
        _CONTRACT.validate_response(request, response)
    except PathError:
        # A path or method that the API does not have.
        assert answer.status in {404, 405}
        return
    if answer.status < 400:
        _CONTRACT.validate_request(request)


class CheckingClient:
    """An HTTP client that fails on any answer that the description does not allow."""

    def __init__(self, session: ClientSession, base: URL) -> None:
        self._session = session
        self.base = base

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """`path` is sent unchanged, so it must be percent-encoded."""
        url = URL(f"{self.base}{path}", encoded=True)
        fields = CIMultiDict(headers or {})
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        if body is not None:
            fields.setdefault("Content-Type", "application/json")
        async with self._session.request(method, url, headers=fields, data=body) as response:
            answer = Answer(response.status, response.headers, await response.read())
        check(method, url, fields, body or b"", answer)
        return answer

    async def get(
        self, path: str, *, token: str | None = "operator", headers: Mapping[str, str] | None = None
    ) -> Answer:
        return await self.request("GET", path, token=token, headers=headers)

    async def post(self, path: str, members: object, *, token: str | None = None) -> Answer:
        return await self.request("POST", path, token=token, body=json.dumps(members).encode())
