"""Lists uploads at a cost that does not grow with the catalog.

A list walks an index from the newest row down. Filters that the index does not cover (name prefix, update time) make a
walk skip rows, so such a walk ends after WALK_ROWS_MAX rows, and the page says where to continue. If only a few rows
match such a filter, another index finds all of them at once.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from daemon.catalog.records import HOLDING, ListQuery, Page, Position, State, Upload
from daemon.catalog.sqlite.names import stands_for
from daemon.catalog.sqlite.rows import CODES, COLUMNS, STATES, to_upload
from protocol.constants import OFFSET_MAX

WALK_ROWS_MAX = 10_000
"""Most rows that a walk looks at for one page, which takes about 10 ms."""

WALK_ROWS_FIRST = 1_000
"""Rows that a walk looks at first, because finding the row where it must end costs as much as skipping the rows. If one
row in ten matches the filter, these fill the usual page."""

FEW_ROWS_MAX = 1_000
"""So many rows cost less to fetch and sort than to find by a walk."""

TIME_MS_MAX = OFFSET_MAX
"""The largest integer of SQLite."""

Value: TypeAlias = str | int | bytes

_SELECT = f"SELECT {COLUMNS} FROM uploads"  # noqa: S608 - constants of this package
_FIND = f"{_SELECT} WHERE id = {stands_for('?1', '?2', '?3')}"
_FIND_READABLE = f"{_SELECT} WHERE id = {stands_for('?1', '?2', '?3', readable=True)}"
_NEWEST_FIRST = "ORDER BY created_ms DESC, id DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class _Filter:
    """Conditions that must all hold, and their values."""

    conditions: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()

    def and_(self, condition: str, *values: Value) -> "_Filter":
        return _Filter((*self.conditions, condition), (*self.values, *values))

    def with_all(self, other: "_Filter") -> "_Filter":
        return _Filter(self.conditions + other.conditions, self.values + other.values)

    def sql(self) -> str:
        return " AND ".join(self.conditions)


@dataclass(frozen=True, slots=True)
class _Walk:
    """The uploads that a walk found, newest first, and the position where it ended; None if it saw every row."""

    uploads: list[Upload]
    floor: Position | None


def list_uploads(connection: sqlite3.Connection, query: ListQuery) -> Page:
    """See `Catalog.list`."""
    few = _find_few(connection, query)
    if few is not None:
        walks = [few]
    elif query.states:
        walks = [_walk(connection, query, state) for state in query.states]
    else:
        walks = [_walk(connection, query, None)]
    # Below a floor some states were not searched, so those rows belong to the next page.
    floor = max((walk.floor for walk in walks if walk.floor), default=Position(-1, -1))
    found = sorted(
        ((_position(each), each) for walk in walks for each in walk.uploads if _position(each) >= floor),
        key=lambda pair: pair[0],
        reverse=True,
    )
    page = found[: query.limit]
    more = page[-1][0] if len(found) > query.limit else floor if floor.id >= 0 else None
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
        # The unary plus makes SQLite use the index of the ids: nearly every row matches the states.
        f"SELECT id FROM uploads WHERE id IN (SELECT value FROM json_each(?)) AND +state IN ({_codes(HOLDING)})",  # noqa: S608 - constants of this package
        (json.dumps(list(upload_ids)),),
    )
    return frozenset(upload_id for (upload_id,) in rows.fetchall())


def counts(connection: sqlite3.Connection) -> Mapping[State, int]:
    """See `Catalog.counts`."""
    rows = connection.execute("SELECT state, uploads FROM state_counts ORDER BY state").fetchall()
    return {STATES[state]: uploads for state, uploads in rows}


def _walk(connection: sqlite3.Connection, query: ListQuery, state: State | None) -> _Walk:
    index, known = _index_of(query, state)
    residual = _uncovered(query)
    start = query.after
    if query.updated_to_ms is not None and (start is None or start.time_ms > query.updated_to_ms):
        # No upload is updated before it is created.
        start = Position(min(query.updated_to_ms, TIME_MS_MAX - 1) + 1, 0)
    if start is not None:
        known = known.and_("(created_ms, id) < (?, ?)", *start)
    for rows_max in (WALK_ROWS_FIRST, WALK_ROWS_MAX):
        bound = _last_row(connection, index, known, rows_max) if residual.conditions else None
        every = known if bound is None else known.and_("(created_ms, id) >= (?, ?)", *bound)
        every = every.with_all(residual)
        statement = f"{_SELECT} INDEXED BY {index} WHERE {every.sql()} {_NEWEST_FIRST}"
        rows = connection.execute(statement, (*every.values, query.limit + 1)).fetchall()
        if bound is None or len(rows) > query.limit:
            break
    uploads = [to_upload(row) for row in rows]
    return _Walk(uploads, _position(uploads[-1]) if len(uploads) > query.limit else bound)


def _last_row(connection: sqlite3.Connection, index: str, known: _Filter, rows_max: int) -> Position | None:
    """The position of the last row that a walk may look at. None if there are fewer rows."""
    row = connection.execute(
        f"SELECT created_ms, id FROM uploads INDEXED BY {index} WHERE {known.sql()} "  # noqa: S608 - only values vary
        f"{_NEWEST_FIRST} OFFSET ?",
        (*known.values, 1, rows_max - 1),
    ).fetchone()
    return Position(*row) if row else None


def _find_few(connection: sqlite3.Connection, query: ListQuery) -> _Walk | None:
    """All matches of the query, if an index of one of its filters finds only a few rows. Else None."""
    for chosen, values in _rare_filters(query):
        # Let SQLite count the rows: each row that is fetched costs a switch of threads.
        one_more = f"SELECT 1 FROM ({chosen}) LIMIT 1 OFFSET ?"  # noqa: S608 - only values vary
        if connection.execute(one_more, (*values, FEW_ROWS_MAX)).fetchone() is None:
            every = _uncovered(query).and_(f"id IN ({chosen})", *values).and_("+tenant = ?", query.tenant)
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


def _rare_filters(query: ListQuery) -> list[tuple[str, tuple[Value, ...]]]:
    choices: list[tuple[str, tuple[Value, ...]]] = []
    choose = "SELECT id FROM uploads INDEXED BY"
    if query.name_prefix:
        index, device = ("uploads_by_tenant_name", ()) if query.device is None else ("uploads_by_name", (query.device,))
        named = _Filter(("tenant = ?", "device = ?")[: 1 + len(device)], (query.tenant, *device))
        named = named.with_all(_prefixed(query.name_prefix, ""))
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


def _index_of(query: ListQuery, state: State | None) -> tuple[str, _Filter]:
    """The index to walk for a query, and the filters that it covers."""
    known = _Filter(("tenant = ?",), (query.tenant,))
    if query.device is not None:
        known = known.and_("device = ?", query.device)
    if state is not None:
        known = known.and_("state = ?", CODES[state])
    by = "tenant" if query.device is None else "device"
    return f"uploads_by_{by}" if state is None else f"uploads_by_{by}_state", known


def _uncovered(query: ListQuery) -> _Filter:
    """The filters that no walked index covers. The unary plus keeps SQLite from choosing another index."""
    residual = _prefixed(query.name_prefix, "+") if query.name_prefix else _Filter()
    if query.updated_from_ms is not None:
        residual = residual.and_("+updated_ms >= ?", query.updated_from_ms)
    if query.updated_to_ms is not None:
        residual = residual.and_("+updated_ms <= ?", query.updated_to_ms)
    return residual


def _prefixed(prefix: str, plus: str) -> _Filter:
    # UTF-8 has no byte 0xFF, so this sorts after every name with the prefix. As a BLOB it would sort after all text.
    above = prefix.encode() + b"\xff"
    return _Filter((f"{plus}name >= ?", f"{plus}name < CAST(? AS TEXT)"), (prefix, above))


def _codes(states: Collection[State]) -> str:
    return ", ".join(sorted(str(CODES[state]) for state in states))


def _position(upload: Upload) -> Position:
    return Position(upload.created_ms, upload.id)
