"""What a name stands for, as an SQL expression: four index look-ups at most, however many uploads have had the name."""

from daemon.catalog.records import State
from daemon.catalog.sqlite.rows import CODES


def stands_for(tenant: str, device: str, name: str, *, readable: bool = False) -> str:
    """The id of the upload that the name stands for, NULL if there never was one. The arguments are SQL expressions.

    It is the upload under way, or the complete one; else the complete one whose replacement failed; else the one that
    ended last. A replacement that failed does not count if the file that it was to replace was deleted meanwhile: the
    name stands for that one. With `readable` a complete one that is being replaced comes first.
    """
    named = f"WHERE tenant = {tenant} AND device = {device} AND name = {name}"
    current = f"(SELECT id FROM uploads INDEXED BY uploads_current {named} AND is_current = 1)"  # noqa: S608 - constants of this package
    # There is never more than one: a completion deletes the one before.
    superseded = (
        f"(SELECT id FROM uploads INDEXED BY uploads_superseded {named} AND state = {CODES[State.COMPLETE]} "  # noqa: S608 - constants of this package
        "AND is_current = 0)"
    )
    all_ended = f"uploads_ended {named} AND state > {CODES[State.COMPLETE]}"
    deleted = CODES[State.DELETED]
    deleted_meanwhile = (
        f"(SELECT id FROM uploads INDEXED BY {all_ended} AND state = {deleted} AND completed_ms IS NOT NULL "  # noqa: S608 - constants of this package
        f"AND last.state <> {deleted} AND last.completed_ms IS NULL "
        "AND updated_ms BETWEEN last.created_ms AND last.updated_ms ORDER BY updated_ms DESC LIMIT 1)"
    )
    ended = (
        f"(SELECT coalesce({deleted_meanwhile}, id) FROM uploads AS last INDEXED BY {all_ended} "  # noqa: S608 - constants of this package
        "ORDER BY updated_ms DESC, created_ms DESC LIMIT 1)"
    )
    first = f"{superseded}, {current}" if readable else f"{current}, {superseded}"
    return f"coalesce({first}, {ended})"
