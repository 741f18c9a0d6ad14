"""GET and HEAD of a file's content, by RFC 9110: conditions, one range, several, or all of it.

A body of at most SMALL_BYTES is one read and one write. A larger one is streamed: a block is read ahead while
the one before is written, and no further one before the client has taken that.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from aiohttp import hdrs, web

from control import byte_ranges, conditions, payload, representation
from control.byte_ranges import ByteRange
from control.conditions import Validators, Verdict
from control.errors import RequestError
from control.files import ENDED, Lookup, ended
from control.payload import Payload
from control.ports import Contents, Failure, File, FileState, RequestIds, Scope

SMALL_BYTES = 256 * 1024
"""Up to here a whole body in memory costs less than the turns of a stream."""


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Bounds on what downloads may hold.

    `streams_max` downloads of more than SMALL_BYTES run at a time (each holds an open file and about 1 MiB);
    a client that takes no block for `stall_timeout_s` is cut off.
    """

    streams_max: int = 256
    stall_timeout_s: float = 60.0


class DownloadRoutes:
    """Serves the bytes of complete files."""

    def __init__(self, lookup: Lookup, contents: Contents, ids: RequestIds, limits: DownloadLimits) -> None:
        self._lookup = lookup
        self._contents = contents
        self._ids = ids
        self._limits = limits
        self._streams = 0

    async def by_id(self, request: web.Request) -> web.StreamResponse:
        _, file = await self._lookup.by_id(request, Scope.READ)
        return await self._serve(request, file, date_is_strong=True)

    async def by_name(self, request: web.Request) -> web.StreamResponse:
        _, file = await self._lookup.by_name(request, Scope.READ)
        # Under one name two files may follow each other within a second.
        return await self._serve(request, file, date_is_strong=False)

    async def _serve(self, request: web.Request, file: File, *, date_is_strong: bool) -> web.StreamResponse:
        size = _complete_size(file)
        known_by = representation.validators(file, date_is_strong=date_is_strong)
        headers = representation.headers(file, known_by)
        verdict = conditions.evaluate(request.headers, known_by)
        if verdict is Verdict.FAILED:
            raise RequestError(
                Failure.PRECONDITION_FAILED,
                f"the file is not the one asked for, it is {known_by.etag} now: begin anew",
                {"ETag": known_by.etag},
            )
        if verdict is Verdict.NOT_MODIFIED:
            return web.Response(status=304, headers=headers)
        body = self._payload(request, file, size, known_by)
        headers["Content-Type"] = body.content_type
        if body.content_range is not None:
            headers["Content-Range"] = body.content_range
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=headers | {"Content-Length": str(body.length)})
        if body.length <= SMALL_BYTES:
            return web.Response(status=body.status, headers=headers, body=await self._read_small(file, body))
        return await self._stream(request, file, headers, body)

    def _payload(self, request: web.Request, file: File, size: int, known_by: Validators) -> Payload:
        media_type = representation.media_type(file.content_type)
        asked = request.headers.get(hdrs.RANGE)
        # Only GET has ranges (RFC 9110, section 14.2).
        if asked is None or request.method != hdrs.METH_GET or not conditions.range_applies(request.headers, known_by):
            return payload.whole(size, media_type)
        try:
            spans = byte_ranges.select(asked, size)
        except byte_ranges.NotSatisfiableError as error:
            unsatisfied = {"Content-Range": f"bytes */{size}"}
            raise RequestError(Failure.RANGE_NOT_SATISFIABLE, str(error), unsatisfied) from None
        if not spans:
            return payload.whole(size, media_type)
        return payload.partial(spans, size, media_type, self._ids.new())

    async def _read_small(self, file: File, body: Payload) -> bytes:
        pieces = [
            payload.checked(await self._contents.read(file.id, piece.start, piece.length), piece)
            if isinstance(piece, ByteRange)
            else piece
            for piece in body.pieces
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _stream(
        self, request: web.Request, file: File, headers: dict[str, str], body: Payload
    ) -> web.StreamResponse:
        if self._streams >= self._limits.streams_max:
            raise RequestError(
                Failure.UNAVAILABLE,
                f"{self._streams} downloads are under way, as many as are served at a time: try again",
                {"Retry-After": "1"},
            )
        self._streams += 1
        try:
            content = await self._contents.open(file.id)
            try:
                response = web.StreamResponse(status=body.status, headers=headers)
                response.content_length = body.length
                await response.prepare(request)
                async with aclosing(payload.read_ahead(content, body)) as blocks:
                    async for block in blocks:
                        await self._write(request, response, block)
                await response.write_eof()
            finally:
                await content.close()
        finally:
            self._streams -= 1
        return response

    async def _write(self, request: web.Request, response: web.StreamResponse, block: bytes) -> None:
        try:
            async with asyncio.timeout(self._limits.stall_timeout_s):
                await response.write(block)
        except TimeoutError:
            if request.transport is not None:
                # A close would first wait for the client to take what is buffered.
                request.transport.abort()
            raise ConnectionAbortedError(f"no data taken for {self._limits.stall_timeout_s} s") from None


def _complete_size(file: File) -> int:
    if file.state in ENDED:
        raise ended(file)
    if file.state is not FileState.COMPLETE or file.size is None:
        raise RequestError(
            Failure.NOT_COMPLETE,
            f"file {file.id:016x} is {file.state}, not complete: its content is served once it is",
        )
    return file.size
