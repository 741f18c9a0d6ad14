"""List, look up and delete files."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from aiohttp import web

from control.access import Access, no_such_file, reachable, reaches
from control.bodies import json_response, json_text, text_response
from control.errors import RequestError
from control.file_json import Json, file_status
from control.listing import parse_query, write_cursor
from control.ports import FileCatalog, FileDeleter, Permission, Principal
from daemon.catalog.records import TOMBSTONES, Upload
from protocol.constants import OFFSET_MAX
from protocol.errors import ErrorCode

_ID = re.compile(r"[0-9a-f]{16}")

TURN_FILES = 64
"""Made into JSON in one turn of the event loop: a millisecond or two, so that a long list delays no device."""

_NAME_SEGMENT = 5
"""Where the name stands in /v1/devices/{device}/files/{name}."""


class Lookup:
    """Finds the file that a path names, within the token's reach."""

    def __init__(self, access: Access, files: FileCatalog) -> None:
        self._access = access
        self._files = files

    async def by_id(self, request: web.Request, permission: Permission) -> tuple[Principal, Upload]:
        """Raises RequestError: 404 for an id that is malformed, unknown, or another's."""
        principal = self._access.require(request, permission)
        file_id = _file_id(request.match_info["id"])
        return principal, reachable(principal, await self._files.get(principal.tenant, file_id))

    async def by_name(self, request: web.Request, permission: Permission) -> tuple[Principal, Upload]:
        """Raises RequestError: 400 for a name that is not UTF-8, 404 for one that is unknown or another device's."""
        principal = self._access.require(request, permission)
        device = request.match_info["device"]
        name = _file_name(request.rel_url.raw_path)
        if not reaches(principal, device):
            raise no_such_file()
        return principal, reachable(principal, await self._files.find(principal.tenant, device, name))


class FileRoutes:
    """The JSON side of files."""

    def __init__(self, access: Access, files: FileCatalog, uploads: FileDeleter, lookup: Lookup) -> None:
        self._access = access
        self._files = files
        self._uploads = uploads
        self._lookup = lookup

    async def list(self, request: web.Request) -> web.StreamResponse:
        """One page, newest first. A device that asks for another's files gets an empty page."""
        principal = self._access.require(request, Permission.READ)
        query = parse_query(request.query, principal.tenant)
        if query.device is not None and not reaches(principal, query.device):
            return await self._page([], None)
        if not principal.is_operator:
            query = replace(query, device=principal.subject)
        page = await self._files.list(query)
        return await self._page(page.uploads, None if page.next is None else write_cursor(page.next))

    async def status_by_id(self, request: web.Request) -> web.StreamResponse:
        _, file = await self._lookup.by_id(request, Permission.READ)
        return json_response(self._status(file))

    async def status_by_name(self, request: web.Request) -> web.StreamResponse:
        _, file = await self._lookup.by_name(request, Permission.READ)
        return json_response(self._status(file))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Cancel a live upload or delete a file; its row stays as a tombstone, and a second DELETE gets 410."""
        principal, file = await self._lookup.by_id(request, Permission.DELETE)
        if file.state in TOMBSTONES:
            raise ended(file)
        await self._uploads.delete(principal.tenant, file.id, principal)
        return web.Response(status=204)

    def _status(self, file: Upload) -> dict[str, Json]:
        return file_status(file, self._files.expires_ms(file))

    async def _page(self, files: Sequence[Upload], next_cursor: str | None) -> web.Response:
        texts = []
        for count, file in enumerate(files, 1):
            texts.append(json_text(self._status(file)))
            if not count % TURN_FILES:
                await asyncio.sleep(0)
        return text_response(f'{{"files":[{",".join(texts)}],"next_cursor":{json_text(next_cursor)}}}')


def ended(file: Upload) -> RequestError:
    """The refusal of a file whose bytes are gone."""
    return RequestError(ErrorCode.GONE, f"file {file.id:016x} is {file.state}: its bytes are gone")


def _file_id(text: str) -> int:
    file_id = int(text, 16) if _ID.fullmatch(text) else 0
    if not 1 <= file_id <= OFFSET_MAX:
        raise no_such_file()
    return file_id


def _file_name(raw_path: str) -> str:
    segment = raw_path.split("/")[_NAME_SEGMENT]
    try:
        return unquote_to_bytes(segment.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        raise RequestError(
            ErrorCode.REQUEST_INVALID, "the file's name in the path is not percent-encoded UTF-8"
        ) from None
