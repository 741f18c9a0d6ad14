"""Around every request: its id, the problem if it fails, metrics and log, and the headers of every answer."""

import re
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from control import errors
from control.access import PRINCIPAL
from control.errors import REQUEST_ID, respond
from control.ports import Exchange, ExchangeLog, ExchangeMetrics, MonotonicClock, RequestIds

CLIENT_CLOSED_REQUEST = 499
"""Logged and counted when the client left first. nginx's number for it; never sent."""

UNMATCHED = "unmatched"
"""The route of an unknown path: clients choose paths, so these must not become labels."""

_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_POST, hdrs.METH_DELETE, hdrs.METH_OPTIONS})

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Server": "uplinkd",
}


def request_id(request: web.BaseRequest, ids: RequestIds) -> str:
    """The client's own X-Request-Id if it is harmless in a log line, else a new one."""
    theirs = request.headers.get("X-Request-Id", "")
    return theirs if _SANE_REQUEST_ID.fullmatch(theirs) else ids.new()


def answer_headers(identifier: str) -> dict[str, str]:
    """The fields of every answer to the request with this id."""
    return {"X-Request-Id": identifier, **SECURITY_HEADERS}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal before any answer goes out, streamed ones included."""
    response.headers.update(answer_headers(request.get(REQUEST_ID, "")))


class Observer:
    """Measures and logs exchanges."""

    def __init__(self, clock: MonotonicClock, http_metrics: ExchangeMetrics, log: ExchangeLog, ids: RequestIds) -> None:
        self.clock = clock
        self.log = log
        self.ids = ids
        self.http_metrics = http_metrics

    def report(
        self, request: web.BaseRequest, *, route: str, status: int, started_s: float, sent_bytes: int, error: str
    ) -> None:
        """Log and count one answered exchange."""
        duration_s = self.clock.monotonic_s() - started_s
        exchange = describe(
            request, route=route, status=status, duration_s=duration_s, sent_bytes=sent_bytes, error=error
        )
        self.http_metrics.observe(exchange)
        self.log.exchange(exchange)


def describe(
    request: web.BaseRequest, *, route: str, status: int, duration_s: float, sent_bytes: int, error: str = ""
) -> Exchange:
    """The record of an answered request."""
    principal = request.get(PRINCIPAL)
    return Exchange(
        request_id=request.get(REQUEST_ID, ""),
        method=request.method if request.method in _METHODS else "other",
        route=route,
        path=request.rel_url.raw_path,
        status=status,
        duration_s=duration_s,
        sent_bytes=sent_bytes,
        error=error,
        subject="" if principal is None else principal.subject,
        remote=request.remote or "",
    )


def make_middleware(observer: Observer) -> Middleware:
    """One layer for everything: each further layer would slow every small range."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = observer.clock.monotonic_s()
        request[REQUEST_ID] = request_id(request, observer.ids)
        status, sent_bytes, error_name = CLIENT_CLOSED_REQUEST, 0, ""
        try:
            response = await handler(request)
            status, sent_bytes = response.status, _body_bytes(request, response)
        except Exception as error:
            sent_bytes = request.writer.output_size
            if isinstance(error, ConnectionError) and _client_is_gone(request):
                raise ConnectionAbortedError("the client went away") from error
            problem = errors.describe(error)
            status, error_name = problem.status, problem.error.name
            if status == HTTPStatus.INTERNAL_SERVER_ERROR:
                observer.log.failure(request[REQUEST_ID], route_of(request), error)
            if sent_bytes:
                # Part of the answer is out: only a cut connection shows the client that the rest is missing.
                raise ConnectionAbortedError("answer cut short") from error
            response = respond(problem, request, request[REQUEST_ID])
            sent_bytes = _body_bytes(request, response)
        finally:
            observer.report(
                request,
                route=route_of(request),
                status=status,
                started_s=started_s,
                sent_bytes=sent_bytes,
                error=error_name,
            )
        return response

    return middleware


def route_of(request: web.Request) -> str:
    """The route's template, or `unmatched`."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical


def _client_is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _body_bytes(request: web.Request, response: web.StreamResponse) -> int:
    return 0 if request.method == hdrs.METH_HEAD else response.content_length or 0
