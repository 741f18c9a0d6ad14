"""Reads many uploads at a price that does not grow with the catalog.

A list walks an index from the newest row down. Filters that the index does not know (name prefix, update time) let a
walk pass over rows, so such a walk ends after WALK_ROWS_MAX of them and the page says where to go on. Where few rows
pass such a filter, they are found by an index of their own instead, and all at once.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from daemon.catalog.records import HOLDING, Page, Position, Query, State, Upload
from daemon.catalog.sqlite.names import stands_for
from daemon.catalog.sqlite.rows import CODES, COLUMNS, STATES, to_upload
from protocol.constants import OFFSET_MAX

WALK_ROWS_MAX = 10_000
"""Rows that one page passes over at most: some 10 ms."""

WALK_ROWS_FIRST = 1_000
"""Tried before, since to find where a walk must end costs as much as to pass over the rows: a filter that one row in
ten passes fills the usual page from these."""

FEW_ROWS_MAX = 1_000
"""Rows that are cheaper to fetch and sort than to meet on a walk."""

TIME_MS_MAX = OFFSET_MAX
"""SQLite's integers end there."""

Value: TypeAlias = str | int | bytes

_SELECT = f"SELECT {COLUMNS} FROM uploads"  # noqa: S608 - constants of this package
_FIND = f"{_SELECT} WHERE id = {stands_for('?1', '?2', '?3')}"
_FIND_READABLE = f"{_SELECT} WHERE id = {stands_for('?1', '?2', '?3', readable=True)}"
_NEWEST_FIRST = "ORDER BY created_ms DESC, id DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class _Filter:
    """Conditions, all of which must hold, and their values."""

    conditions: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()

    def and_(self, condition: str, *values: Value) -> "_Filter":
        return _Filter((*self.conditions, condition), (*self.values, *values))

    def both(self, other: "_Filter") -> "_Filter":
        return _Filter(self.conditions + other.conditions, self.values + other.values)

    def sql(self) -> str:
        return " AND ".join(self.conditions)


@dataclass(frozen=True, slots=True)
class _Walk:
    """What a walk met, newest first, and the position below which it did not look; None: it looked at all."""

    uploads: list[Upload]
    floor: Position | None


def list_uploads(connection: sqlite3.Connection, query: Query) -> Page:
    """See `Catalog.list`."""
    few = _few(connection, query)
    if few is not None:
        walks = [few]
    elif query.states:
        walks = [_walk(connection, query, state) for state in query.states]
    else:
        walks = [_walk(connection, query, None)]
    # What lies below a floor is not known of every state, so it waits for the next page.
    floor = max((walk.floor for walk in walks if walk.floor), default=Position(-1, -1))
    met = sorted(
        ((_position(each), each) for walk in walks for each in walk.uploads if _position(each) >= floor),
        key=lambda pair: pair[0],
        reverse=True,
    )
    page = met[: query.limit]
    more = page[-1][0] if len(met) > query.limit else floor if floor.id >= 0 else None
    return Page(tuple(each for _, each in page), more)


def find(connection: sqlite3.Connection, tenant: str, device: str, name: str) -> Upload | None:
    """See `Catalog.find`."""
    row = connection.execute(_FIND, (tenant, device, name)).fetchone()
    return to_upload(row) if row else None


def find_readable(connection: sqlite3.Connection, tenant: str, device: str, name: str) -> Upload | None:
    """See `Catalog.find_readable`."""
    row = connection.execute(_FIND_READABLE, (tenant, device, name)).fetchone()
    return to_upload(row) if row else None


def older(
    connection: sqlite3.Connection, state: State, before_ms: int, limit: int, after: Position | None
) -> Sequence[Upload]:
    """See `Catalog.older`."""
    rows = connection.execute(
        f"{_SELECT} INDEXED BY uploads_by_age WHERE state = ? AND updated_ms < ? AND (updated_ms, id) > (?, ?) "
        "ORDER BY updated_ms, id LIMIT ?",
        (CODES[state], before_ms, *(after or Position(-1, -1)), limit),
    )
    return [to_upload(row) for row in rows.fetchall()]


def receiving(connection: sqlite3.Connection, after_id: int, limit: int) -> Sequence[Upload]:
    """See `Catalog.receiving`."""
    rows = connection.execute(
        f"{_SELECT} INDEXED BY uploads_receiving WHERE state = {CODES[State.RECEIVING]} AND id > ? ORDER BY id LIMIT ?",
        (after_id, limit),
    )
    return [to_upload(row) for row in rows.fetchall()]


def existing(connection: sqlite3.Connection, upload_ids: Collection[int]) -> frozenset[int]:
    """See `Catalog.existing`."""
    rows = connection.execute(
        # The unary plus keeps the choice on the ids; the states would match nearly every row.
        f"SELECT id FROM uploads WHERE id IN (SELECT value FROM json_each(?)) AND +state IN ({_codes(HOLDING)})",  # noqa: S608 - constants of this package
        (json.dumps(list(upload_ids)),),
    )
    return frozenset(upload_id for (upload_id,) in rows.fetchall())


def counts(connection: sqlite3.Connection) -> Mapping[State, int]:
    """See `Catalog.counts`."""
    rows = connection.execute("SELECT state, uploads FROM state_counts ORDER BY state").fetchall()
    return {STATES[state]: uploads for state, uploads in rows}


def _walk(connection: sqlite3.Connection, query: Query, state: State | None) -> _Walk:
    index, known = _walked(query, state)
    residual = _residual(query)
    start = query.after
    if query.updated_to_ms is not None and (start is None or start.time_ms > query.updated_to_ms):
        # Nothing is updated before it is created.
        start = Position(min(query.updated_to_ms, TIME_MS_MAX - 1) + 1, 0)
    if start is not None:
        known = known.and_("(created_ms, id) < (?, ?)", *start)
    for rows_max in (WALK_ROWS_FIRST, WALK_ROWS_MAX):
        bound = _bound(connection, index, known, rows_max) if residual.conditions else None
        every = known if bound is None else known.and_("(created_ms, id) >= (?, ?)", *bound)
        every = every.both(residual)
        statement = f"{_SELECT} INDEXED BY {index} WHERE {every.sql()} {_NEWEST_FIRST}"
        rows = connection.execute(statement, (*every.values, query.limit + 1)).fetchall()
        if bound is None or len(rows) > query.limit:
            break
    uploads = [to_upload(row) for row in rows]
    return _Walk(uploads, _position(uploads[-1]) if len(uploads) > query.limit else bound)


def _bound(connection: sqlite3.Connection, index: str, known: _Filter, rows_max: int) -> Position | None:
    """The position of the last row that a walk may look at, if it does not end before."""
    row = connection.execute(
        f"SELECT created_ms, id FROM uploads INDEXED BY {index} WHERE {known.sql()} "  # noqa: S608 - only values vary
        f"{_NEWEST_FIRST} OFFSET ?",
        (*known.values, 1, rows_max - 1),
    ).fetchone()
    return Position(*row) if row else None


def _few(connection: sqlite3.Connection, query: Query) -> _Walk | None:
    """All that the query asks for, when its rarest filter has an index that finds only a few."""
    for chosen, values in _choices(query):
        # SQLite counts them by itself: each row that is fetched costs a hand-over between threads.
        one_more = f"SELECT 1 FROM ({chosen}) LIMIT 1 OFFSET ?"  # noqa: S608 - only values vary
        if connection.execute(one_more, (*values, FEW_ROWS_MAX)).fetchone() is None:
            every = _residual(query).and_(f"id IN ({chosen})", *values).and_("+tenant = ?", query.tenant)
            if query.device is not None:
                every = every.and_("+device = ?", query.device)
            if query.states:
                every = every.and_(f"+state IN ({_codes(query.states)})")
            if query.after is not None:
                every = every.and_("(+created_ms, +id) < (?, ?)", *query.after)
            rows = connection.execute(
                f"{_SELECT} WHERE {every.sql()} {_NEWEST_FIRST}", (*every.values, query.limit + 1)
            ).fetchall()
            return _Walk([to_upload(row) for row in rows], None)
    return None


def _choices(query: Query) -> list[tuple[str, tuple[Value, ...]]]:
    choices: list[tuple[str, tuple[Value, ...]]] = []
    choose = "SELECT id FROM uploads INDEXED BY"
    if query.name_prefix:
        index, device = ("uploads_by_tenant_name", ()) if query.device is None else ("uploads_by_name", (query.device,))
        named = _Filter(("tenant = ?", "device = ?")[: 1 + len(device)], (query.tenant, *device))
        named = named.both(_named(query.name_prefix, ""))
        choices.append((f"{choose} {index} WHERE {named.sql()}", named.values))
    if query.updated_from_ms is not None or query.updated_to_ms is not None:
        within = (query.updated_from_ms or 0, TIME_MS_MAX if query.updated_to_ms is None else query.updated_to_ms)
        choices.append(
            (
                f"{choose} uploads_settled WHERE tenant = ? AND state > 0 AND updated_ms BETWEEN ? AND ? "
                f"UNION ALL {choose} uploads_by_age WHERE state = 0 AND updated_ms BETWEEN ? AND ?",
                (query.tenant, *within, *within),
            )
        )
    return choices


def _walked(query: Query, state: State | None) -> tuple[str, _Filter]:
    """The index to walk for a query, and what it knows."""
    known = _Filter(("tenant = ?",), (query.tenant,))
    if query.device is not None:
        known = known.and_("device = ?", query.device)
    if state is not None:
        known = known.and_("state = ?", CODES[state])
    by = "tenant" if query.device is None else "device"
    return f"uploads_by_{by}" if state is None else f"uploads_by_{by}_state", known


def _residual(query: Query) -> _Filter:
    """What no walked index knows; the unary plus keeps SQLite from choosing another one."""
    residual = _named(query.name_prefix, "+") if query.name_prefix else _Filter()
    if query.updated_from_ms is not None:
        residual = residual.and_("+updated_ms >= ?", query.updated_from_ms)
    if query.updated_to_ms is not None:
        residual = residual.and_("+updated_ms <= ?", query.updated_to_ms)
    return residual


def _named(prefix: str, plus: str) -> _Filter:
    # No UTF-8 has the byte 0xFF: it follows every name with the prefix. As a BLOB it would follow all text.
    above = prefix.encode() + b"\xff"
    return _Filter((f"{plus}name >= ?", f"{plus}name < CAST(? AS TEXT)"), (prefix, above))


def _codes(states: Collection[State]) -> str:
    return ", ".join(sorted(str(CODES[state]) for state in states))


def _position(upload: Upload) -> Position:
    return Position(upload.created_ms, upload.id)
