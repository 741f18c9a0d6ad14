"""Every refusal in one shape: application/problem+json (RFC 9457) with the registry's code and a request id."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from control.file_json import Json
from control.ports import ErrorInfo, Errors, Failure, Refused

REQUEST_ID = web.RequestKey("request_id", str)

STATUSES: Mapping[Failure, int] = {
    Failure.BAD_REQUEST: 400,
    Failure.UNAUTHENTICATED: 401,
    Failure.FORBIDDEN: 403,
    Failure.NOT_FOUND: 404,
    Failure.METHOD_NOT_ALLOWED: 405,
    Failure.NOT_COMPLETE: 409,
    Failure.GONE: 410,
    Failure.PRECONDITION_FAILED: 412,
    Failure.TOO_LARGE: 413,
    Failure.RANGE_NOT_SATISFIABLE: 416,
    Failure.INTERNAL: 500,
    Failure.UNAVAILABLE: 503,
}

_FRAMEWORK_FAILURES: Mapping[int, Failure] = {
    404: Failure.NOT_FOUND,
    405: Failure.METHOD_NOT_ALLOWED,
    413: Failure.TOO_LARGE,
}


class RequestError(Exception):
    """The control plane refuses a request; `extra` are further members of the problem."""

    def __init__(
        self,
        failure: Failure,
        detail: str,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra or {}


@dataclass(frozen=True, slots=True)
class ProblemDetails:
    """What a problem says, before it is tied to a request."""

    error: ErrorInfo
    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)


class Problems:
    """Turns exceptions into problems with the registry's entries. Raises ValueError if an entry is missing."""

    def __init__(self, errors: Errors) -> None:
        missing = sorted(failure.value for failure in Failure if failure not in errors)
        if missing:
            raise ValueError(f"the error registry has no entry for {', '.join(missing)}: add it to `errors`")
        self._errors = errors

    def describe(self, error: Exception) -> ProblemDetails:
        """The problem that `error` is to the client; of an unforeseen one it says nothing."""
        if isinstance(error, RequestError):
            status = STATUSES[error.failure]
            return ProblemDetails(
                self._errors[error.failure], status, error.detail, _challenged(status, error.headers), error.extra
            )
        if isinstance(error, Refused):
            wait = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return ProblemDetails(error.error, error.status, error.detail, _challenged(error.status, wait))
        if isinstance(error, web.HTTPException) and error.status < 500:
            return self.of_status(error)
        detail = "the server failed to answer; if it persists, tell the operator the request id"
        return ProblemDetails(self._errors[Failure.INTERNAL], STATUSES[Failure.INTERNAL], detail)

    def of_status(self, error: web.HTTPException) -> ProblemDetails:
        """The problem for what the HTTP framework itself refused."""
        failure = _FRAMEWORK_FAILURES.get(error.status, Failure.BAD_REQUEST)
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return ProblemDetails(self._errors[failure], error.status, error.text or error.reason, allowed)

    def malformed(self, status: int, detail: str) -> ProblemDetails:
        """The problem for bytes that are not a request."""
        failure = Failure.BAD_REQUEST if status < 500 else Failure.INTERNAL
        return ProblemDetails(self._errors[failure], status, detail)


def respond(problem: ProblemDetails, request: web.BaseRequest, request_id: str) -> web.Response:
    """The answer that carries `problem`; `instance` is the path asked for, without its query."""
    error = problem.error
    members: dict[str, Json] = {
        "type": f"urn:uplinkd:error:{error.name.lower()}",
        "title": error.name.lower().replace("_", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.rel_url.raw_path,
        "code": error.code,
        "name": error.name,
        "action": error.action,
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
