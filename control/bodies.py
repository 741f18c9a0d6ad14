"""JSON bodies, in and out."""

import asyncio
import json
from collections.abc import Mapping

from aiohttp import web

from control.errors import RequestError
from control.file_json import Json
from protocol.errors import ErrorCode

BODY_TIMEOUT_S = 10.0
"""Bodies are below 16 KiB; a slower client only keeps a connection busy."""

NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store"}


async def read_object(request: web.Request, known: frozenset[str]) -> dict[str, object]:
    """The members of a JSON object, {} for no body. Raises RequestError: 400 for anything else."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        raise RequestError(
            ErrorCode.REQUEST_INVALID, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s"
        ) from None
    if not body.strip():
        return {}
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise RequestError(ErrorCode.REQUEST_INVALID, "the body is not a JSON object")
    unknown = sorted(members.keys() - known)
    if unknown:
        raise RequestError(
            ErrorCode.REQUEST_INVALID,
            f"unknown member {unknown[0][:40]!r} in the body: known are {', '.join(sorted(known))}",
        )
    return members


def json_text(value: Json) -> str:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_response(members: Mapping[str, Json], headers: Mapping[str, str] = NO_STORE) -> web.Response:
    """200 with a JSON object."""
    return text_response(json_text(members), headers)


def text_response(text: str, headers: Mapping[str, str] = NO_STORE) -> web.Response:
    """200 with JSON that is text already."""
    return web.Response(body=text.encode(), content_type="application/json", headers=headers)
