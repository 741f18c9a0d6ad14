"""The application on its sockets: bytes that are no request get a problem, too, and the end is graceful."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

from aiohttp import web

from control import errors
from control.app import OBSERVER
from control.connections import ConnectionLimits, Connections, SocketState
from control.errors import REQUEST_ID, ProblemDetails, respond
from control.middleware import UNMATCHED, Observer, answer_headers, request_id

HEAD_TIMEOUT_S = 15.0
"""A connection without a request by then is closed: a header section is one packet."""

KEEPALIVE_TIMEOUT_S = 75.0
"""Longer than the 60 s for which common reverse proxies keep an idle connection, so that they close it first."""

FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""The answer where every connection that the control plane may have is busy."""

BACKLOG = 1024

_NO_ACCESS_LOG = logging.Logger("control.access", logging.CRITICAL)
"""Exchanges go to the Log port; aiohttp's own access log stays off."""


SocketStates: TypeAlias = Callable[[int], SocketState | None]
"""Gives the state of a descriptor's socket; None where it is not known."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen, if no socket is handed over; port 0 takes a free one."""

    host: str
    port: int


class ControlServer:
    """The listening control plane."""

    def __init__(self, runner: "_Runner", drain_timeout_s: float) -> None:
        self._runner = runner
        self._drain_timeout_s = drain_timeout_s
        self._watching = asyncio.ensure_future(runner.connections.watch())

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each internet socket that is listened on."""
        return tuple((address[0], address[1]) for address in self._runner.addresses if isinstance(address, tuple))

    def cut_all(self) -> None:
        """Close every connection at once."""
        self._runner.connections.cut_all()

    async def close(self) -> None:
        """Stop listening, close idle connections, and give requests `drain_timeout_s` to end before they are cut."""
        self._watching.cancel()
        await asyncio.wait([self._watching])
        # aiohttp waits twice as long, and then for clients that read nothing.
        last_resort = asyncio.get_running_loop().call_later(self._drain_timeout_s, self.cut_all)
        try:
            await self._runner.cleanup()
        finally:
            last_resort.cancel()
            self.cut_all()


async def serve(
    app: web.Application,
    listeners: Sequence[ListenAddress | socket.socket],
    *,
    drain_timeout_s: float,
    limits: ConnectionLimits | None = None,
    socket_state: SocketStates = lambda _: None,
) -> ControlServer:
    """Listen on every one of `listeners`. Raises OSError if one of them fails, and closes the others.

    `socket_state` gives the state of a descriptor's socket; None: it is not known, and its client is not judged.
    """
    connections = Connections(limits or ConnectionLimits(), app[OBSERVER].clock)
    runner = _Runner(app, connections, socket_state, drain_timeout_s)
    await runner.setup()
    try:
        for listener in listeners:
            await _site(runner, listener).start()
    except OSError:
        await runner.cleanup()
        raise
    return ControlServer(runner, drain_timeout_s)


def _site(runner: web.AppRunner, listener: ListenAddress | socket.socket) -> web.BaseSite:
    if isinstance(listener, ListenAddress):
        return web.TCPSite(runner, listener.host, listener.port, backlog=BACKLOG)
    return web.SockSite(runner, listener, backlog=BACKLOG)


class _Runner(web.AppRunner):
    """An AppRunner that makes connections of our class; aiohttp's own runners override `_make_server` as well."""

    def __init__(
        self, app: web.Application, connections: Connections, socket_state: SocketStates, drain_timeout_s: float
    ) -> None:
        super().__init__(app, shutdown_timeout=drain_timeout_s)
        self.connections = connections
        self._socket_state = socket_state

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(self.app, made, self.connections, self._socket_state)


class _Server(web.Server):
    def __init__(
        self, app: web.Application, made: web.Server, connections: Connections, socket_state: SocketStates
    ) -> None:
        super().__init__(self._handle, request_factory=made.request_factory)
        self.in_all = connections
        self.socket_state = socket_state
        self.observer: Observer = app[OBSERVER]
        self._app_handler = made.request_handler

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, asyncio.get_running_loop())

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        if isinstance(connection, _Connection):
            connection.spoke()
        try:
            return await self._app_handler(request)
        except web.HTTPException as error:
            # Raised before the middleware is reached: an expectation that cannot be met.
            return self.refuse(request, errors.describe(error))
        finally:
            if isinstance(connection, _Connection):
                connection.is_busy = False

    def refuse(self, request: web.BaseRequest, problem: ProblemDetails) -> web.Response:
        """Answer what never reached the application; it is measured and logged like any other request."""
        started_s = self.observer.clock.monotonic_s()
        request[REQUEST_ID] = request_id(request, self.observer.ids)
        response = respond(problem, request, request[REQUEST_ID])
        response.headers.update(answer_headers(request[REQUEST_ID]))
        self.observer.report(
            request,
            route=UNMATCHED,
            status=problem.status,
            started_s=started_s,
            sent_bytes=response.content_length or 0,
            error=problem.error.name,
        )
        return response


class _Connection(web.RequestHandler):
    __slots__ = ("_head_timer", "_on_cut", "_server", "address", "is_busy")

    def __init__(self, server: _Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, keepalive_timeout=KEEPALIVE_TIMEOUT_S, access_log=_NO_ACCESS_LOG)
        self._server = server
        self._head_timer = loop.call_later(HEAD_TIMEOUT_S, self.force_close)
        self._on_cut: Callable[[], None] | None = None
        self.address = ""
        self.is_busy = False
        """A request is being answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        if not self._server.in_all.admit(self) and self.transport is not None:
            self.transport.write(FULL)
            self.force_close()

    def spoke(self) -> None:
        """A request has arrived: from now on the keep-alive timeout holds."""
        self._head_timer.cancel()
        self.is_busy = True
        self._server.in_all.spoke(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_timer.cancel()
        self._server.in_all.leave(self)
        self._tell_cut()
        super().connection_lost(exc)

    def when_cut(self, run: Callable[[], None] | None) -> None:
        """Run something when the connection is cut, or lost: a download holds the socket by another descriptor."""
        self._on_cut = run

    def _tell_cut(self) -> None:
        run, self._on_cut = self._on_cut, None
        if run is not None:
            run()

    # What `Connections` asks.

    @property
    def is_idle(self) -> bool:
        return not self.is_busy and (self.transport is None or not self.transport.get_write_buffer_size())

    def state(self) -> SocketState | None:
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        return None if sock is None or sock.fileno() < 0 else self._server.socket_state(sock.fileno())

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        self._tell_cut()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the signature is aiohttp's
    ) -> web.StreamResponse:
        """What aiohttp itself refuses: bytes that are no request (400), and failures around the application."""
        if isinstance(exc, ConnectionAbortedError) or request.writer.output_size:
            raise ConnectionAbortedError("answer cut short") from exc
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and isinstance(exc, Exception):
            self._server.observer.log.failure(request.get(REQUEST_ID, ""), UNMATCHED, exc)
        detail = "the bytes sent are not an HTTP request" if status < 500 else "the server failed to answer"
        response = self._server.refuse(request, errors.malformed(status, detail))
        response.force_close()
        return response
