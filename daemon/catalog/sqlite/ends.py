"""The only place that writes the end of an upload. What else an end has to record belongs here, in its transaction."""

import sqlite3

from daemon.catalog.records import TOMBSTONES, Completion, End, State, Upload
from daemon.catalog.sqlite.rows import CODES, COLUMNS, pack_ranges, to_upload

_KEPT = {
    State.COMPLETE: (
        "size = :size, held_bytes = :size, crc32c = :crc32c, sha256 = :sha256, ranges = :ranges, "
        "completed_ms = max(created_ms, :at_ms)"
    ),
    State.REJECTED: "is_current = 0",
    **dict.fromkeys(TOMBSTONES, "is_current = 0, ranges = x'', held_bytes = 0"),
}
"""What an end in each state leaves of an upload."""

_STATEMENTS = {
    state: (
        f"UPDATE uploads SET state = {CODES[state]}, updated_ms = max(created_ms, :at_ms), {kept} "  # noqa: S608 - constants of this package
        f"WHERE id = :id AND state = :was AND epoch = coalesce(:epoch, epoch) RETURNING {COLUMNS}"
    )
    for state, kept in _KEPT.items()
}


def write_end(
    connection: sqlite3.Connection, end: End, *, epoch: int | None = None, completion: Completion | None = None
) -> Upload | None:
    """Write how an upload ended; `completion` comes with COMPLETE. Returns the upload as it is now.

    None, and nothing changes, if the upload is not in `end.was`, or not in `epoch` where one is given.
    """
    values: dict[str, int | bytes | None] = {
        "id": end.upload_id, "was": CODES[end.was], "at_ms": end.at_ms, "epoch": epoch
    }  # fmt: skip
    if completion is not None:
        values |= {
            "size": completion.size,
            "crc32c": completion.crc32c,
            "sha256": completion.sha256,
            "ranges": pack_ranges(completion.ranges),
        }
    rows = connection.execute(_STATEMENTS[end.state], values).fetchall()
    return to_upload(rows[0]) if rows else None
