"""Every refusal in one shape: application/problem+json (RFC 9457) with the registry's code and a request id."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from control.file_json import Json
from control.ports import RequestRefused
from protocol.errors import ErrorCode

REQUEST_ID = web.RequestKey("request_id", str)

STATUSES: Mapping[ErrorCode, int] = {
    ErrorCode.REQUEST_INVALID: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.RESOURCE_UNKNOWN: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.NOT_COMPLETE: 409,
    ErrorCode.GONE: 410,
    ErrorCode.PRECONDITION_FAILED: 412,
    ErrorCode.REQUEST_TOO_LARGE: 413,
    ErrorCode.RANGE_NOT_SATISFIABLE: 416,
    ErrorCode.INTERNAL: 500,
    ErrorCode.UNAVAILABLE: 503,
}

_FRAMEWORK_CODES: Mapping[int, ErrorCode] = {
    404: ErrorCode.RESOURCE_UNKNOWN,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.REQUEST_TOO_LARGE,
}


class RequestError(Exception):
    """The control plane refuses a request; `extra` are further members of the problem."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra or {}


@dataclass(frozen=True, slots=True)
class ProblemDetails:
    """What a problem says, before it is tied to a request."""

    error: ErrorCode
    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)


def describe(error: Exception) -> ProblemDetails:
    """The problem that `error` is to the client; of an unforeseen one it says nothing."""
    if isinstance(error, RequestError):
        status = STATUSES[error.code]
        return ProblemDetails(error.code, status, error.detail, _challenged(status, error.headers), error.extra)
    if isinstance(error, RequestRefused):
        wait = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        return ProblemDetails(error.error, error.status, error.detail, _challenged(error.status, wait))
    if isinstance(error, web.HTTPException) and error.status < 500:
        return _of_framework(error)
    return ProblemDetails(
        ErrorCode.INTERNAL, 500, "the server failed to answer; if it persists, give the operator the request id"
    )


def malformed(status: int, detail: str) -> ProblemDetails:
    """The problem for bytes that are not a request."""
    return ProblemDetails(ErrorCode.REQUEST_INVALID if status < 500 else ErrorCode.INTERNAL, status, detail)


def _of_framework(error: web.HTTPException) -> ProblemDetails:
    code = _FRAMEWORK_CODES.get(error.status, ErrorCode.REQUEST_INVALID)
    allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return ProblemDetails(code, error.status, error.text or error.reason, allowed)


def respond(problem: ProblemDetails, request: web.BaseRequest, request_id: str) -> web.Response:
    """The answer that carries `problem`; `instance` is the path asked for, without its query."""
    error = problem.error
    members: dict[str, Json] = {
        "type": f"urn:uplinkd:error:{error.name.lower()}",
        "title": error.name.lower().replace("_", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.rel_url.raw_path,
        "code": int(error),
        "name": error.name,
        "action": error.action.name.lower(),
        "request_id": request_id,
        **problem.extra,
    }
    return web.Response(
        status=problem.status,
        body=json.dumps(members).encode(),
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store", **problem.headers},
    )


def _challenged(status: int, headers: Mapping[str, str]) -> Mapping[str, str]:
    # RFC 9110, section 15.5.2: each 401 names the scheme that would be accepted.
    return {"WWW-Authenticate": 'Bearer realm="uplinkd"', **headers} if status == 401 else headers
