"""What an OPEN does, decided from the newest upload under its name; no database is involved.

A current upload is always the newest under its name: `created` sees to it.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeVar

from daemon.catalog.records import (
    TOMBSTONES,
    Disposition,
    Metadata,
    OpenRequest,
    Outcome,
    State,
    Upload,
)

Known = TypeVar("Known", int, bytes)


class Standing(Enum):
    """What a name stands for when it is opened."""

    FREE = auto()
    """Nothing current: never used, forgotten, or the last upload was rejected, aborted or expired."""
    GONE = auto()
    """The last upload was deleted, and that is not forgotten yet."""
    OPEN = auto()
    """The current upload is receiving or partial."""
    COMPLETE = auto()
    """The current upload is complete."""


TABLE: dict[tuple[Standing, Disposition], Outcome] = {
    (Standing.FREE, Disposition.RESUME_OR_CREATE): Outcome.CREATED,
    (Standing.FREE, Disposition.RESUME_ONLY): Outcome.NOT_FOUND,
    (Standing.FREE, Disposition.REPLACE): Outcome.CREATED,
    (Standing.GONE, Disposition.RESUME_OR_CREATE): Outcome.GONE,
    (Standing.GONE, Disposition.RESUME_ONLY): Outcome.GONE,
    (Standing.GONE, Disposition.REPLACE): Outcome.CREATED,
    (Standing.OPEN, Disposition.RESUME_OR_CREATE): Outcome.RESUMED,
    (Standing.OPEN, Disposition.RESUME_ONLY): Outcome.RESUMED,
    (Standing.OPEN, Disposition.REPLACE): Outcome.CREATED,
    (Standing.COMPLETE, Disposition.RESUME_OR_CREATE): Outcome.COMPLETE,
    (Standing.COMPLETE, Disposition.RESUME_ONLY): Outcome.COMPLETE,
    (Standing.COMPLETE, Disposition.REPLACE): Outcome.CREATED,
}
"""Before content and quota are looked at: those can only turn an outcome into a refusal."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    `upload` is the record to insert (CREATED), to write (RESUMED), or to show (COMPLETE, CONTENT_CHANGED, GONE).
    `abort_id` is an upload to abort and `supersede_id` a complete one that is no longer current, both before.
    """

    outcome: Outcome
    upload: Upload | None = None
    previous: State | None = None
    abort_id: int | None = None
    supersede_id: int | None = None


def decide(request: OpenRequest, newest: Upload | None, used_bytes: int) -> Decision:
    """`newest` is the latest upload under the name; `used_bytes` what the device holds (any number without quota)."""
    standing = _standing(request, newest)
    outcome = TABLE[standing, request.disposition]
    if outcome is Outcome.CREATED:
        return _create(request, newest, standing, used_bytes)
    if newest is None or outcome is Outcome.NOT_FOUND:
        return Decision(Outcome.NOT_FOUND, previous=_previous(request, newest))
    if outcome is Outcome.GONE:
        return Decision(outcome, newest, State.DELETED)
    if content_changed(request, newest):
        return Decision(Outcome.CONTENT_CHANGED, newest)
    if outcome is Outcome.COMPLETE:
        return Decision(outcome, newest)
    resumed = _resumed(request, newest)
    grown = resumed.held_bytes - newest.held_bytes
    if request.quota_bytes and grown and used_bytes + grown > request.quota_bytes:
        return Decision(Outcome.QUOTA_EXCEEDED, newest)
    return Decision(outcome, resumed)


def content_changed(request: OpenRequest, known: Upload) -> bool:
    """Whether the request cannot mean the same bytes: another tag, or size or digest where both are known."""
    received_end = known.ranges[-1].end if known.ranges else 0
    return (
        request.tag != known.tag
        or _differ(request.size, known.size)
        or (request.size is not None and request.size < received_end)
        or _differ(request.crc32c_expected, _first(known.crc32c, known.crc32c_expected))
        or _differ(request.sha256_expected, _first(known.sha256, known.sha256_expected))
    )


def _standing(request: OpenRequest, newest: Upload | None) -> Standing:
    if newest is None:
        return Standing.FREE
    if newest.is_current:
        return Standing.COMPLETE if newest.state is State.COMPLETE else Standing.OPEN
    gone = newest.state is State.DELETED and newest.updated_ms >= request.tombstone_after_ms
    return Standing.GONE if gone else Standing.FREE


def _previous(request: OpenRequest, newest: Upload | None) -> State | None:
    if newest is None or newest.state is State.COMPLETE:
        return None
    forgotten = newest.state in TOMBSTONES and newest.updated_ms < request.tombstone_after_ms
    return None if forgotten else newest.state


def _create(request: OpenRequest, newest: Upload | None, standing: Standing, used_bytes: int) -> Decision:
    upload = _created(request, newest)
    aborted = newest if standing is Standing.OPEN else None
    superseded = newest if standing is Standing.COMPLETE else None
    used_bytes -= aborted.held_bytes if aborted else 0
    # An upload of unknown size needs room for at least one byte.
    needed = 1 if request.size is None else request.size
    if request.quota_bytes and used_bytes + needed > request.quota_bytes:
        return Decision(Outcome.QUOTA_EXCEEDED, newest if newest and newest.is_current else None)
    return Decision(
        Outcome.CREATED,
        upload,
        State.ABORTED if aborted else _previous(request, newest),
        aborted.id if aborted else None,
        superseded.id if superseded else None,
    )


def _created(request: OpenRequest, newest: Upload | None) -> Upload:
    # Later than all others under the name even if the clock was set back: the newest must stay the newest.
    created_ms = max(request.now_ms, newest.created_ms + 1) if newest else request.now_ms
    return Upload(
        id=request.upload_id,
        tenant=request.tenant,
        device=request.device,
        name=request.name,
        state=State.RECEIVING,
        is_current=True,
        epoch=1,
        size=request.size,
        tag=request.tag,
        ranges=(),
        crc32c=None,
        sha256=None,
        crc32c_expected=request.crc32c_expected,
        sha256_expected=request.sha256_expected,
        metadata=request.metadata,
        created_ms=created_ms,
        updated_ms=created_ms,
        completed_ms=None,
    )


def _resumed(request: OpenRequest, known: Upload) -> Upload:
    return replace(
        known,
        state=State.RECEIVING,
        epoch=known.epoch + 1,
        size=_first(known.size, request.size),
        crc32c_expected=_first(known.crc32c_expected, request.crc32c_expected),
        sha256_expected=_first(known.sha256_expected, request.sha256_expected),
        metadata=request.metadata if known.metadata == Metadata() else known.metadata,
        updated_ms=max(known.created_ms, request.now_ms),
    )


def _differ(one: int | bytes | None, other: int | bytes | None) -> bool:
    return one is not None and other is not None and one != other


def _first(one: Known | None, other: Known | None) -> Known | None:
    return other if one is None else one
