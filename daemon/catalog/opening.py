"""What an OPEN does, decided from the upload that its name stands for; no database is involved."""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeVar

from daemon.catalog.records import (
    TOMBSTONES,
    UNDER_WAY,
    End,
    EndReason,
    Metadata,
    OpenRequest,
    Outcome,
    State,
    Upload,
    Usage,
)
from protocol.constants import Disposition

Known = TypeVar("Known", int, bytes)


class Standing(Enum):
    """What a name stands for when it is opened."""

    FREE = auto()
    """Nothing: never used, forgotten, or the last upload was rejected, aborted or expired."""
    GONE = auto()
    """The last upload was deleted, and that is not forgotten yet."""
    OPEN = auto()
    """An upload that is receiving or partial."""
    COMPLETE = auto()
    """A complete file."""


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
    Before it is inserted, `replaced` must end, or the complete file `supersede_id` make way as the name's current one.
    """

    outcome: Outcome
    upload: Upload | None = None
    previous: State | None = None
    replaced: End | None = None
    supersede_id: int | None = None


def decide(request: OpenRequest, known: Upload | None, used: Usage) -> Decision:
    """`known` is what the name stands for (see `Catalog.find`).

    `used` is what the device has; it does not matter if the request sets no limit.
    """
    standing = _standing(request, known)
    outcome = TABLE[standing, request.disposition]
    if outcome is Outcome.CREATED:
        return _create(request, known, standing, used)
    if known is None or outcome is Outcome.NOT_FOUND:
        return Decision(Outcome.NOT_FOUND, previous=_previous(request, known))
    if outcome is Outcome.GONE:
        return Decision(outcome, known, State.DELETED)
    if content_changed(request, known):
        return Decision(Outcome.CONTENT_CHANGED, known)
    if outcome is Outcome.COMPLETE:
        return Decision(outcome, known)
    resumed = _resumed(request, known)
    grown = resumed.held_bytes - known.held_bytes
    if request.quota_bytes and grown and used.held_bytes + grown > request.quota_bytes:
        return Decision(Outcome.QUOTA_EXCEEDED, known)
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


def _standing(request: OpenRequest, known: Upload | None) -> Standing:
    if known is None:
        return Standing.FREE
    if known.state in UNDER_WAY:
        return Standing.OPEN
    if known.state is State.COMPLETE:
        return Standing.COMPLETE
    gone = known.state is State.DELETED and known.updated_ms >= request.tombstone_after_ms
    return Standing.GONE if gone else Standing.FREE


def _previous(request: OpenRequest, known: Upload | None) -> State | None:
    if known is None:
        return None
    forgotten = known.state in TOMBSTONES and known.updated_ms < request.tombstone_after_ms
    return None if forgotten else known.state


def _create(request: OpenRequest, known: Upload | None, standing: Standing, used: Usage) -> Decision:
    upload = _created(request, known)
    aborted = known if standing is Standing.OPEN else None
    superseded = known if standing is Standing.COMPLETE else None
    used_bytes = used.held_bytes - (aborted.held_bytes if aborted else 0)
    # An upload of unknown size needs room for at least one byte.
    needed = 1 if request.size is None else request.size
    has_room = not request.quota_bytes or used_bytes + needed <= request.quota_bytes
    if not has_room or (request.uploads_max and used.uploads >= request.uploads_max):
        return Decision(Outcome.QUOTA_EXCEEDED, aborted or superseded)
    if aborted is None:
        supersede_id = superseded.id if superseded else None
        return Decision(Outcome.CREATED, upload, _previous(request, known), supersede_id=supersede_id)
    end = End(aborted.id, aborted.state, State.ABORTED, upload.created_ms, EndReason.REPLACED)
    return Decision(Outcome.CREATED, upload, end.state, end)


def _created(request: OpenRequest, known: Upload | None) -> Upload:
    # It ends after the one before has ended, even if the clock was set back: a name stands for what ended last.
    created_ms = max(request.now_ms, known.updated_ms + 1) if known else request.now_ms
    return Upload(
        id=request.upload_id,
        tenant=request.tenant,
        device=request.device,
        name=request.name,
        state=State.RECEIVING,
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
