"""GET and HEAD of a file's content, by RFC 9110: conditions, one range, several, or all of it.

A body of at most SMALL_BYTES is one read and one write. A larger one goes from the file to the socket within the
kernel, past this process's memory, as fast as the client reads it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from aiohttp import hdrs, web

from control import accel, byte_ranges, conditions, payload, representation
from control.access import PRINCIPAL
from control.byte_ranges import ByteRange
from control.conditions import ConditionResult, Validators
from control.errors import RequestError
from control.files import Lookup, ended
from control.payload import SMALL_BYTES, Payload
from control.ports import Content, ContentStore, Permission, RequestIds
from daemon.catalog.records import TOMBSTONES, State, Upload
from protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Bounds on what downloads may hold.

    `streams_max` downloads of more than SMALL_BYTES run at a time (each holds two descriptors). One client may have as
    many of them as are free, so that one alone has half, and there is always room for another.
    """

    streams_max: int = 256


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who sends the bytes. With `accel_prefix`, a reverse proxy that says it can: from its internal location there."""

    accel_prefix: str | None = None
    limits: DownloadLimits = field(default_factory=DownloadLimits)


@runtime_checkable
class Cuttable(Protocol):
    """A connection that says when it is cut."""

    def when_cut(self, run: Callable[[], None] | None) -> None:
        """Run something when the connection is cut or lost."""
        ...


class DownloadRoutes:
    """Serves the bytes of complete files."""

    def __init__(self, lookup: Lookup, contents: ContentStore, ids: RequestIds, delivery: Delivery) -> None:
        self._lookup = lookup
        self._contents = contents
        self._ids = ids
        self._limits = delivery.limits
        self._accel_prefix = delivery.accel_prefix
        self._streams: Counter[str] = Counter()

    async def by_id(self, request: web.Request) -> web.StreamResponse:
        _, file = await self._lookup.by_id(request, Permission.READ)
        return await self._serve(request, file, date_is_strong=True)

    async def by_name(self, request: web.Request) -> web.StreamResponse:
        _, file = await self._lookup.by_name(request, Permission.READ)
        # Under one name two files may follow each other within a second.
        return await self._serve(request, file, date_is_strong=False)

    async def _serve(self, request: web.Request, file: Upload, *, date_is_strong: bool) -> web.StreamResponse:
        size = _complete_size(file)
        known_by = representation.validators(file, date_is_strong=date_is_strong)
        headers = representation.headers(file, known_by)
        result = conditions.evaluate(request.headers, known_by)
        if result is ConditionResult.FAILED:
            raise RequestError(
                ErrorCode.PRECONDITION_FAILED,
                f"the file is not the one asked for, it is {known_by.etag} now: begin again",
                {"ETag": known_by.etag},
            )
        if result is ConditionResult.NOT_MODIFIED:
            return web.Response(status=304, headers=headers)
        body = self._payload(request, file, size, known_by)
        if self._accel_prefix is not None and accel.is_offered(request.headers, body):
            headers["Content-Type"] = representation.media_type(file.metadata.content_type)
            headers[accel.REDIRECT] = self._accel_prefix + self._contents.path(file.id)
            # nginx adds its own, and keeps ours as well.
            del headers[hdrs.ACCEPT_RANGES]
            return web.Response(headers=headers)
        headers["Content-Type"] = body.content_type
        if body.content_range is not None:
            headers["Content-Range"] = body.content_range
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=headers | {"Content-Length": str(body.length)})
        if body.length <= SMALL_BYTES:
            return web.Response(status=body.status, headers=headers, body=await self._read_small(file, body))
        return await self._stream(request, file, headers, body)

    def _payload(self, request: web.Request, file: Upload, size: int, known_by: Validators) -> Payload:
        media_type = representation.media_type(file.metadata.content_type)
        asked = request.headers.get(hdrs.RANGE)
        # Only GET has ranges (RFC 9110, section 14.2).
        if asked is None or request.method != hdrs.METH_GET or not conditions.range_applies(request.headers, known_by):
            return payload.whole(size, media_type)
        try:
            spans = byte_ranges.select(asked, size)
        except byte_ranges.NotSatisfiableError as error:
            unsatisfied = {"Content-Range": f"bytes */{size}"}
            raise RequestError(ErrorCode.RANGE_NOT_SATISFIABLE, str(error), unsatisfied) from None
        if not spans:
            return payload.whole(size, media_type)
        return payload.partial(spans, size, media_type, self._ids.new())

    async def _read_small(self, file: Upload, body: Payload) -> bytes:
        if not body.length:
            # Nothing was ever stored for an empty file.
            return b""
        pieces = []
        content = await self._contents.open(file.id)
        try:
            for piece in body.pieces:
                if isinstance(piece, ByteRange):
                    pieces.append(await content.read(piece.start, piece.length))
                    payload.check_length(len(pieces[-1]), piece)
                else:
                    pieces.append(piece)
        finally:
            await content.close()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _stream(
        self, request: web.Request, file: Upload, headers: dict[str, str], body: Payload
    ) -> web.StreamResponse:
        client = _client(request)
        running, theirs = self._streams.total(), self._streams[client]
        if running + max(theirs, 1) > self._limits.streams_max:
            raise RequestError(
                ErrorCode.UNAVAILABLE,
                f"{running} downloads are running, {theirs} of them yours; http.download_concurrency allows "
                f"{self._limits.streams_max} in all, and each client as many as are free: try again",
                {"Retry-After": "1"},
            )
        self._streams[client] += 1
        try:
            async with _until_cut(request):
                return await self._send_all(request, file, headers, body)
        finally:
            self._streams -= Counter({client: 1})

    async def _send_all(
        self, request: web.Request, file: Upload, headers: dict[str, str], body: Payload
    ) -> web.StreamResponse:
        content = await self._contents.open(file.id)
        try:
            response = web.StreamResponse(status=body.status, headers=headers)
            response.content_length = body.length
            await response.prepare(request)
            for piece in body.pieces:
                if isinstance(piece, ByteRange):
                    await self._send(request, content, piece)
                else:
                    await response.write(piece)
            await response.write_eof()
        finally:
            await content.close()
        return response

    async def _send(self, request: web.Request, content: Content, span: ByteRange) -> None:
        transport = _open_transport(request)
        # What follows bypasses the transport, so all that the transport was given must be sent first.
        transport.set_write_buffer_limits(0)
        await request.writer.drain()
        sent = 0
        try:
            async with aclosing(content.send(_fd(transport), span.start, span.length)) as steps:
                while step := await anext(steps, 0):
                    sent += step
                    request.writer.output_size += step
                    _open_transport(request)
        except ConnectionError:
            transport.abort()
            raise
        transport.set_write_buffer_limits()
        payload.check_length(sent, span)


@asynccontextmanager
async def _until_cut(request: web.Request) -> AsyncIterator[None]:
    """End the block when the connection is cut, or lost. Raises ConnectionAbortedError."""
    connection = request.protocol
    try:
        async with asyncio.timeout(None) as limit:
            if isinstance(connection, Cuttable):
                connection.when_cut(lambda: limit.reschedule(0.0))
            yield
    except TimeoutError:
        raise ConnectionAbortedError("the client took too little, or went away") from None
    finally:
        if isinstance(connection, Cuttable):
            connection.when_cut(None)


def _client(request: web.Request) -> str:
    """Whose share of the downloads a request counts against."""
    principal = request.get(PRINCIPAL)
    return "" if principal is None else f"{principal.tenant}/{principal.subject}"


def _open_transport(request: web.Request) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client went away")
    return transport


def _fd(transport: asyncio.Transport) -> int:
    # The listeners speak plain HTTP: nothing stands between the transport and its socket that would have to encrypt.
    number: int = transport.get_extra_info("socket").fileno()
    return number


def _complete_size(file: Upload) -> int:
    if file.state in TOMBSTONES:
        raise ended(file)
    if file.state is not State.COMPLETE or file.size is None:
        raise RequestError(
            ErrorCode.NOT_COMPLETE,
            f"file {file.id:016x} is {file.state}, not complete: its content is served once it is",
        )
    return file.size
