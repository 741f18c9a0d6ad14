"""The query of a list, from text to values: filters, the page's length and its opaque cursor."""

import base64
import binascii
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from control.errors import RequestError
from daemon.catalog.records import PAGE_ROWS_MAX, ListQuery, Position, State
from protocol.constants import OFFSET_MAX
from protocol.errors import ErrorCode

LIMIT_DEFAULT = 100

_CURSOR = struct.Struct(">QQ")
"""created_ms and id of the last file of the page before."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SINGLE = ("device", "prefix", "updated_from", "updated_to", "limit", "cursor")


class Parameters(Protocol):
    """The part of a URL's query that is read here."""

    def __iter__(self) -> Iterator[str]:
        """A key once for each of its values."""
        ...

    def get(self, key: str, /) -> str | None: ...

    def getall(self, key: str, default: list[str], /) -> list[str]: ...


def parse_query(query: Parameters, tenant: str) -> ListQuery:
    """Raises RequestError, with status 400 and the parameter's name, rather than list more than was asked for."""
    for name in query:
        if name != "state" and name not in _SINGLE:
            raise _bad(f"unknown parameter {name!r}: known are state, {', '.join(_SINGLE)}")
        if name in _SINGLE and len(query.getall(name, [])) > 1:
            raise _bad(f"{name}: given more than once, give it once")
    cursor = query.get("cursor")
    return ListQuery(
        tenant=tenant,
        limit=_limit(query.get("limit")),
        device=query.get("device"),
        states=frozenset(_state(value) for value in query.getall("state", [])),
        name_prefix=query.get("prefix"),
        updated_from_ms=_moment_ms("updated_from", query.get("updated_from"), round_up=True),
        updated_to_ms=_moment_ms("updated_to", query.get("updated_to"), round_up=False),
        after=None if cursor is None else _read_cursor(cursor),
    )


def write_cursor(position: Position) -> str:
    """The cursor that continues after `position`."""
    return base64.urlsafe_b64encode(_CURSOR.pack(position.time_ms, position.id)).rstrip(b"=").decode()


def _read_cursor(text: str) -> Position:
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        created_ms, file_id = _CURSOR.unpack(packed)
    except (binascii.Error, struct.error, ValueError):
        raise _bad("cursor: not one of ours, use next_cursor of the page before") from None
    if created_ms > OFFSET_MAX or file_id > OFFSET_MAX:
        raise _bad("cursor: not one of ours, use next_cursor of the page before")
    return Position(created_ms, file_id)


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= PAGE_ROWS_MAX):
        raise _bad(f"limit: {text[:20]!r} is not a number from 1 to {PAGE_ROWS_MAX}")
    return int(text)


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        raise _bad(f"state: {text[:20]!r} is none of {', '.join(State)}") from None


def _moment_ms(name: str, text: str | None, *, round_up: bool) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _bad(f"{name}: {text[:40]!r} is not a time as 2026-01-31T12:00:00Z (RFC 3339; a + in it is written %2B)")
    ms, rest = divmod(moment - _EPOCH, timedelta(milliseconds=1))
    return max(0, ms + 1 if rest and round_up else ms)


def _bad(detail: str) -> RequestError:
    return RequestError(ErrorCode.REQUEST_INVALID, detail)
