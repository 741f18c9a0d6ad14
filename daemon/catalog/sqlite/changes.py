"""What changes uploads, each a function on a connection inside a transaction."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from daemon.catalog.opening import Decision, decide
from daemon.catalog.records import (
    END_REASONS,
    ENDINGS,
    TOMBSTONES,
    Completed,
    Completion,
    End,
    EndReason,
    OpenRequest,
    OpenResult,
    Outcome,
    Progress,
    State,
    Upload,
    Usage,
)
from daemon.catalog.sqlite.ends import write_end
from daemon.catalog.sqlite.names import stands_for
from daemon.catalog.sqlite.rows import CODES, COLUMNS, pack_ranges, to_row, to_upload

STATEMENT_ROWS_MAX = 1024
"""Rows in one statement: the ten values at most of each stay well below SQLite's 32,766 parameters."""

_UNUSED = Usage(0, 0)

_STANDS_FOR = f"SELECT {COLUMNS} FROM uploads WHERE id = {stands_for('?1', '?2', '?3')}"  # noqa: S608 - constants of this package
_USAGE = "SELECT bytes, uploads FROM usage WHERE tenant = ? AND device = ?"
_INSERT = (
    f"INSERT INTO uploads ({COLUMNS}, held_bytes, is_current) "  # noqa: S608 - constants of this package
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)"
)
_SUPERSEDED = (
    "SELECT id FROM uploads INDEXED BY uploads_superseded WHERE tenant = ? AND device = ? AND name = ? "  # noqa: S608 - constants of this package
    f"AND state = {CODES[State.COMPLETE]} AND is_current = 0"
)
_PARK = (
    f"UPDATE uploads SET state = {CODES[State.PARTIAL]}, updated_ms = max(created_ms, ?1) "  # noqa: S608 - constants of this package
    f"WHERE id = ?2 AND state = {CODES[State.RECEIVING]} AND epoch = coalesce(?3, epoch) RETURNING {COLUMNS}"
)


def open_upload(connection: sqlite3.Connection, request: OpenRequest) -> OpenResult:
    """See `Catalog.open`."""
    key = (request.tenant, request.device, request.name)
    row = connection.execute(_STANDS_FOR, key).fetchone()
    is_limited = request.quota_bytes or request.uploads_max
    used = usage(connection, request.tenant, request.device) if is_limited else _UNUSED
    decision = decide(request, to_upload(row) if row else None, used)
    if decision.outcome is Outcome.CREATED and decision.upload is not None:
        _create(connection, decision, decision.upload)
    elif decision.outcome is Outcome.RESUMED and decision.upload is not None:
        connection.execute(_resume_statement(1), _resumption(decision.upload))
    return OpenResult(decision.outcome, decision.upload, decision.previous, decision.replaced)


def open_uploads(connection: sqlite3.Connection, requests: Sequence[OpenRequest]) -> list[OpenResult]:
    """As `open_upload` one after the other; requests that cannot touch each other share two statements."""
    with _all_or_nothing(connection):
        names = {(request.tenant, request.device, request.name) for request in requests}
        if len(names) < len(requests) or any(request.quota_bytes for request in requests):
            return [open_upload(connection, request) for request in requests]
        results: list[OpenResult] = []
        for first in range(0, len(requests), STATEMENT_ROWS_MAX):
            results += _open_apart(connection, requests[first : first + STATEMENT_ROWS_MAX])
        return results


def _open_apart(connection: sqlite3.Connection, requests: Sequence[OpenRequest]) -> list[OpenResult]:
    """Open under different names, without quotas of bytes."""
    count = _padded(len(requests))
    keys = [(index, each.tenant, each.device, each.name) for index, each in enumerate(requests)]
    values = _flat(keys, count, 4)
    known = {row[0]: to_upload(row[1:]) for row in connection.execute(_stands_for_statement(count), values)}
    decisions = []
    resumed = []
    for index, request in enumerate(requests):
        decision = decide(request, known.get(index), _UNUSED)
        if decision.outcome is Outcome.CREATED and request.uploads_max:
            # Only a new upload may be one too many, so a fleet that resumes pays for no lookup.
            decision = decide(request, known.get(index), usage(connection, request.tenant, request.device))
        decisions.append(decision)
        if decision.outcome is Outcome.CREATED and decision.upload is not None:
            _create(connection, decision, decision.upload)
        elif decision.outcome is Outcome.RESUMED and decision.upload is not None:
            resumed.append(_resumption(decision.upload))
    if resumed:
        count = _padded(len(resumed))
        connection.execute(_resume_statement(count), _flat(resumed, count, 10))
    return [OpenResult(each.outcome, each.upload, each.previous, each.replaced) for each in decisions]


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
        count = _padded(len(some))
        recorded += connection.execute(_progress_statement(count), _flat(some, count, 5)).rowcount
    if recorded == len(rows):
        return [True] * len(progress)
    live = {key for key in latest if _is_live(connection, *key)}
    return [(each.upload_id, each.epoch) in live for each in progress]


def complete(connection: sqlite3.Connection, completion: Completion) -> Completed | None:
    """See `Catalog.complete`."""
    end = End(completion.upload_id, State.RECEIVING, State.COMPLETE, completion.now_ms, EndReason.FINISHED)
    with _all_or_nothing(connection):
        upload = write_end(connection, end, epoch=completion.epoch, completion=completion)
        if upload is None:
            return None
        row = connection.execute(_SUPERSEDED, (upload.tenant, upload.device, upload.name)).fetchone()
        if row is None:
            return Completed(upload, None)
        superseded = End(row[0], State.COMPLETE, State.DELETED, completion.now_ms, EndReason.SUPERSEDED)
        write_end(connection, superseded)
        return Completed(upload, superseded)


def end(connection: sqlite3.Connection, upload_id: int, state: State, now_ms: int, epoch: int | None) -> Upload | None:
    """See `Catalog.end`."""
    upload = get(connection, upload_id)
    if upload is None or state not in ENDINGS.get(upload.state, ()):
        return None
    return write_end(connection, End(upload_id, upload.state, state, now_ms, END_REASONS[state]), epoch=epoch)


def park(connection: sqlite3.Connection, upload_id: int, now_ms: int, epoch: int | None) -> Upload | None:
    """See `Catalog.park`."""
    rows = connection.execute(_PARK, (now_ms, upload_id, epoch)).fetchall()
    return to_upload(rows[0]) if rows else None


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


def usage(connection: sqlite3.Connection, tenant: str, device: str) -> Usage:
    """See `Catalog.usage`."""
    row = connection.execute(_USAGE, (tenant, device)).fetchone()
    return Usage(*row) if row else _UNUSED


def _create(connection: sqlite3.Connection, decision: Decision, upload: Upload) -> None:
    values = (*to_row(upload), upload.held_bytes)
    if decision.replaced is None and decision.supersede_id is None:
        connection.execute(_INSERT, values)
        return
    with _all_or_nothing(connection):
        if decision.replaced is not None:
            write_end(connection, decision.replaced)
        else:
            connection.execute("UPDATE uploads SET is_current = 0 WHERE id = ?", (decision.supersede_id,))
        connection.execute(_INSERT, values)


@contextmanager
def _all_or_nothing(connection: sqlite3.Connection) -> Iterator[None]:
    """Several writes of one function: when one fails, those before it are undone, and the transaction goes on."""
    connection.execute("SAVEPOINT several")
    try:
        yield
    except Exception:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO several")
        raise
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE several")


def _resumption(upload: Upload) -> tuple[int | str | bytes | None, ...]:
    return (
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


def _padded(count: int) -> int:
    """A power of two, so that few statements serve all sizes and stay prepared."""
    return 1 << (count - 1).bit_length()


def _flat(
    rows: Sequence[tuple[int | str | bytes | None, ...]], count: int, width: int
) -> list[int | str | bytes | None]:
    """The values of `rows`, and NULLs, which match no upload, for a statement with `count` rows."""
    return [value for row in rows for value in row] + [None] * (width * (count - len(rows)))


def _table(count: int, width: int) -> str:
    """Rows of parameters; SQLite calls their values column1, column2 and so on."""
    row = ", ".join("?" * width)
    return "VALUES " + ", ".join([f"({row})"] * count)


@cache
def _stands_for_statement(count: int) -> str:
    # CROSS JOIN keeps the order: each name is looked up once.
    return (
        f"SELECT column1, {COLUMNS} FROM ({_table(count, 4)}) CROSS JOIN uploads "  # noqa: S608 - constants of this package
        f"WHERE uploads.id = {stands_for('column2', 'column3', 'column4')}"
    )


@cache
def _resume_statement(count: int) -> str:
    return (
        f"UPDATE uploads SET state = {CODES[State.RECEIVING]}, epoch = column1, size = column2, held_bytes = column3, "  # noqa: S608 - constants of this package
        "crc32c_expected = column4, sha256_expected = column5, content_type = column6, external_id = column7, "
        f"original_name = column8, updated_ms = column9 FROM ({_table(count, 10)}) WHERE uploads.id = column10"
    )


@cache
def _progress_statement(count: int) -> str:
    return (
        "UPDATE uploads SET ranges = column1, held_bytes = max(coalesce(size, 0), column2), "  # noqa: S608 - constants of this package
        f"updated_ms = max(created_ms, column3) FROM ({_table(count, 5)}) "
        f"WHERE uploads.id = column4 AND uploads.epoch = column5 AND state = {CODES[State.RECEIVING]}"
    )


def _is_live(connection: sqlite3.Connection, upload_id: int, epoch: int) -> bool:
    statement = f"SELECT 1 FROM uploads WHERE id = ? AND epoch = ? AND state = {CODES[State.RECEIVING]}"  # noqa: S608 - constants of this package
    return connection.execute(statement, (upload_id, epoch)).fetchone() is not None
