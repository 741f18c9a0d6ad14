"""What changes uploads, each a function on a connection inside a transaction."""

import sqlite3
from collections.abc import Sequence
from functools import cache

from daemon.catalog.opening import Decision, decide
from daemon.catalog.records import (
    ENDINGS,
    TOMBSTONES,
    Completed,
    Completion,
    OpenRequest,
    OpenResult,
    Outcome,
    Progress,
    State,
    Upload,
)
from daemon.catalog.rows import CODES, COLUMNS, pack_ranges, to_row, to_upload

STATEMENT_ROWS_MAX = 1024
"""Rows of progress in one statement: its five values a row stay well below SQLite's 32,766 parameters."""

_NEWEST = (
    f"SELECT {COLUMNS} FROM uploads INDEXED BY uploads_by_name "  # noqa: S608 - constants of this package
    "WHERE tenant = ? AND device = ? AND name = ? ORDER BY created_ms DESC LIMIT 1"
)
_USAGE = "SELECT bytes FROM usage WHERE tenant = ? AND device = ?"
_INSERT = (
    f"INSERT INTO uploads ({COLUMNS}, held_bytes) "  # noqa: S608 - constants of this package
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_RESUME = (
    f"UPDATE uploads SET state = {CODES[State.RECEIVING]}, epoch = ?, size = ?, held_bytes = ?, "  # noqa: S608 - constants of this package
    "crc32c_expected = ?, sha256_expected = ?, content_type = ?, external_id = ?, original_name = ?, updated_ms = ? "
    "WHERE id = ?"
)
_COMPLETE = (
    f"UPDATE uploads SET state = {CODES[State.COMPLETE]}, size = ?1, held_bytes = ?1, "  # noqa: S608 - constants of this package
    "crc32c = ?2, sha256 = ?3, ranges = ?4, "
    "updated_ms = max(created_ms, ?5), completed_ms = max(created_ms, ?5) "
    f"WHERE id = ?6 AND epoch = ?7 AND state = {CODES[State.RECEIVING]} RETURNING {COLUMNS}"
)
_BURY = (
    "UPDATE uploads SET state = ?, is_current = 0, ranges = x'', held_bytes = 0, updated_ms = max(created_ms, ?) WHERE "
)
_SUPERSEDE = (
    f"{_BURY} tenant = ? AND device = ? AND name = ? AND state = {CODES[State.COMPLETE]} "
    "AND is_current = 0 RETURNING id"
)
_MOVE = "UPDATE uploads SET state = ?, is_current = ?, updated_ms = max(created_ms, ?) WHERE id = ?"


def open_upload(connection: sqlite3.Connection, request: OpenRequest) -> OpenResult:
    """See `Catalog.open`."""
    key = (request.tenant, request.device, request.name)
    row = connection.execute(_NEWEST, key).fetchone()
    used_bytes = usage(connection, request.tenant, request.device) if request.quota_bytes else 0
    decision = decide(request, to_upload(row) if row else None, used_bytes)
    if decision.outcome is Outcome.CREATED and decision.upload is not None:
        _create(connection, decision, decision.upload)
    elif decision.outcome is Outcome.RESUMED and decision.upload is not None:
        _resume(connection, decision.upload)
    return OpenResult(decision.outcome, decision.upload, decision.previous, decision.abort_id)


def commit(connection: sqlite3.Connection, progress: Sequence[Progress]) -> list[bool]:
    """See `Catalog.commit`."""
    # The last word on each upload: a statement that met one twice would take either.
    latest = {(each.upload_id, each.epoch): each for each in progress}
    rows = [
        (pack_ranges(each.ranges), sum([held.end - held.start for held in each.ranges]), each.now_ms, *key)
        for key, each in latest.items()
    ]
    recorded = 0
    for first in range(0, len(rows), STATEMENT_ROWS_MAX):
        some = rows[first : first + STATEMENT_ROWS_MAX]
        # A power of two, so that few statements serve all sizes and stay prepared. NULLs match no upload.
        count = 1 << (len(some) - 1).bit_length()
        values: list[bytes | int | None] = [value for row in some for value in row]
        values += [None] * (5 * (count - len(some)))
        recorded += connection.execute(_progress_statement(count), values).rowcount
    if recorded == len(rows):
        return [True] * len(progress)
    live = {key for key in latest if _is_live(connection, *key)}
    return [(each.upload_id, each.epoch) in live for each in progress]


def complete(connection: sqlite3.Connection, completion: Completion) -> Completed | None:
    """See `Catalog.complete`."""
    values = (
        completion.size,
        completion.crc32c,
        completion.sha256,
        pack_ranges(completion.ranges),
        completion.now_ms,
        completion.upload_id,
        completion.epoch,
    )
    rows = connection.execute(_COMPLETE, values).fetchall()
    if not rows:
        return None
    upload = to_upload(rows[0])
    superseded = connection.execute(
        _SUPERSEDE, (CODES[State.DELETED], completion.now_ms, upload.tenant, upload.device, upload.name)
    ).fetchall()
    return Completed(upload, superseded[0][0] if superseded else None)


def end(connection: sqlite3.Connection, upload_id: int, state: State, now_ms: int, epoch: int | None) -> Upload | None:
    """See `Catalog.end`."""
    upload = get(connection, upload_id)
    if upload is None or state not in ENDINGS.get(upload.state, ()) or epoch not in (None, upload.epoch):
        return None
    if state in TOMBSTONES:
        connection.execute(f"{_BURY} id = ?", (CODES[state], now_ms, upload_id))
    else:
        connection.execute(_MOVE, (CODES[state], state is State.PARTIAL, now_ms, upload_id))
    return get(connection, upload_id)


def purge_tombstones(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """See `Catalog.purge_tombstones`."""
    codes = ", ".join(str(CODES[state]) for state in sorted(TOMBSTONES))
    statement = (
        "DELETE FROM uploads WHERE id IN (SELECT id FROM uploads INDEXED BY uploads_by_age "  # noqa: S608 - constants of this package
        f"WHERE state IN ({codes}) AND updated_ms < ? LIMIT ?)"
    )
    return connection.execute(statement, (before_ms, limit)).rowcount


def get(connection: sqlite3.Connection, upload_id: int) -> Upload | None:
    """See `Catalog.get`."""
    statement = f"SELECT {COLUMNS} FROM uploads WHERE id = ?"  # noqa: S608 - constants of this package
    row = connection.execute(statement, (upload_id,)).fetchone()
    return to_upload(row) if row else None


def usage(connection: sqlite3.Connection, tenant: str, device: str) -> int:
    """See `Catalog.usage`."""
    row = connection.execute(_USAGE, (tenant, device)).fetchone()
    return int(row[0]) if row else 0


def _create(connection: sqlite3.Connection, decision: Decision, upload: Upload) -> None:
    values = (*to_row(upload), upload.held_bytes)
    if decision.abort_id is None and decision.supersede_id is None:
        connection.execute(_INSERT, values)
        return
    connection.execute("SAVEPOINT create_upload")
    try:
        if decision.abort_id is not None:
            connection.execute(f"{_BURY} id = ?", (CODES[State.ABORTED], upload.created_ms, decision.abort_id))
        else:
            connection.execute("UPDATE uploads SET is_current = 0 WHERE id = ?", (decision.supersede_id,))
        connection.execute(_INSERT, values)
    except Exception:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO create_upload")
        raise
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE create_upload")


def _resume(connection: sqlite3.Connection, upload: Upload) -> None:
    values = (
        upload.epoch,
        upload.size,
        upload.held_bytes,
        upload.crc32c_expected,
        upload.sha256_expected,
        upload.metadata.content_type,
        upload.metadata.external_id,
        upload.metadata.original_name,
        upload.updated_ms,
        upload.id,
    )
    connection.execute(_RESUME, values)


@cache
def _progress_statement(count: int) -> str:
    rows = ", ".join(["(?, ?, ?, ?, ?)"] * count)
    # column1 to column5 are SQLite's names for the values of a row.
    return (
        "UPDATE uploads SET ranges = column1, held_bytes = max(coalesce(size, 0), column2), "  # noqa: S608 - constants of this package
        f"updated_ms = max(created_ms, column3) FROM (VALUES {rows}) "
        f"WHERE uploads.id = column4 AND uploads.epoch = column5 AND state = {CODES[State.RECEIVING]}"
    )


def _is_live(connection: sqlite3.Connection, upload_id: int, epoch: int) -> bool:
    statement = f"SELECT 1 FROM uploads WHERE id = ? AND epoch = ? AND state = {CODES[State.RECEIVING]}"  # noqa: S608 - constants of this package
    return connection.execute(statement, (upload_id, epoch)).fetchone() is not None
