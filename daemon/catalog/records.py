"""The catalog's values. Times are Unix milliseconds, passed in by the caller; None is unknown or not yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NamedTuple

from protocol.constants import Disposition
from protocol.ranges import DigestedRange

PAGE_ROWS_MAX = 1000
"""The longest page of a list: some 500 KiB of records, read in a few milliseconds."""


class State(StrEnum):
    """Where an upload stands. The last three hold no bytes: their rows are tombstones."""

    RECEIVING = "receiving"
    PARTIAL = "partial"
    COMPLETE = "complete"
    REJECTED = "rejected"
    ABORTED = "aborted"
    DELETED = "deleted"
    EXPIRED = "expired"


UNDER_WAY = frozenset({State.RECEIVING, State.PARTIAL})
TOMBSTONES = frozenset({State.ABORTED, State.DELETED, State.EXPIRED})
HOLDING = frozenset(State) - TOMBSTONES

ENDINGS: Mapping[State, frozenset[State]] = {
    State.RECEIVING: frozenset({State.REJECTED, State.ABORTED, State.DELETED, State.EXPIRED}),
    State.PARTIAL: frozenset({State.ABORTED, State.DELETED, State.EXPIRED}),
    State.COMPLETE: frozenset({State.DELETED, State.EXPIRED}),
    State.REJECTED: frozenset({State.DELETED, State.EXPIRED}),
}
"""Where `Catalog.end` may lead from each state; what is absent is refused.

`Catalog.complete` ends a receiving upload as complete. `park` and `open` turn receiving into partial and back.
"""


class EndReason(Enum):
    """Why an upload ended."""

    FINISHED = "finished"
    """All bytes are there, and they have the digest given."""
    MISMATCHED = "mismatched"
    """All bytes are there, and they do not have the digest given."""
    ABORTED = "aborted"
    """The device gave it up."""
    REPLACED = "replaced"
    """The device replaced it before it was complete."""
    SUPERSEDED = "superseded"
    """The file that replaces it is complete."""
    DELETED = "deleted"
    """The operator deleted it."""
    EXPIRED = "expired"
    """Its time was over."""


END_REASONS: Mapping[State, EndReason] = {
    State.REJECTED: EndReason.MISMATCHED,
    State.ABORTED: EndReason.ABORTED,
    State.DELETED: EndReason.DELETED,
    State.EXPIRED: EndReason.EXPIRED,
}
"""Why `Catalog.end` ends an upload in each state."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of an upload: it was in state `was`, and is in `state` since `at_ms`."""

    upload_id: int
    was: State
    state: State
    at_ms: int
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the device says of its file; "" is absent."""

    content_type: str = ""
    external_id: str = ""
    original_name: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload. `ranges` are sorted, disjoint and do not touch; a tombstone has none.

    `epoch` is the fencing token: 1 at first, one more with each resume. `updated_ms` is the last open, progress or
    change of state, so for an upload that has ended the time at which it did.
    """

    id: int
    tenant: str
    device: str
    name: str
    state: State
    epoch: int
    size: int | None
    tag: bytes
    ranges: tuple[DigestedRange, ...]
    crc32c: int | None
    sha256: bytes | None
    crc32c_expected: int | None
    sha256_expected: bytes | None
    metadata: Metadata
    created_ms: int
    updated_ms: int
    completed_ms: int | None

    @property
    def next_expected_byte(self) -> int:
        """Every byte below it is durable."""
        return self.ranges[0].end if self.ranges and self.ranges[0].start == 0 else 0

    @property
    def received_bytes(self) -> int:
        """How many bytes are durable, in all ranges."""
        return sum(each.end - each.start for each in self.ranges)

    @property
    def held_bytes(self) -> int:
        """What the upload counts towards its device's quota: what it declared or what it has, the greater."""
        return 0 if self.state in TOMBSTONES else max(self.size or 0, self.received_bytes)


class Usage(NamedTuple):
    """What a device has in the catalog: the bytes that its uploads hold, and its uploads of any state."""

    held_bytes: int
    uploads: int


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """An OPEN. `upload_id` (1 to 2^63-1) is taken if a new upload is created; `tag` is 0 to 32 bytes.

    `quota_bytes` limits the bytes that the device holds, and `uploads_max` its uploads of any state; 0 is no limit.
    Tombstones of uploads that ended before
    `tombstone_after_ms` count as forgotten.
    """

    upload_id: int
    tenant: str
    device: str
    name: str
    disposition: Disposition
    now_ms: int
    size: int | None = None
    tag: bytes = b""
    crc32c_expected: int | None = None
    sha256_expected: bytes | None = None
    metadata: Metadata = Metadata()
    quota_bytes: int = 0
    uploads_max: int = 0
    tombstone_after_ms: int = 0


class Outcome(Enum):
    """What an OPEN came to."""

    CREATED = "created"
    RESUMED = "resumed"
    COMPLETE = "complete"
    CONTENT_CHANGED = "content_changed"
    GONE = "gone"
    NOT_FOUND = "not_found"
    QUOTA_EXCEEDED = "quota_exceeded"


@dataclass(frozen=True, slots=True)
class OpenResult:
    """What an OPEN came to.

    `upload` is the one created or resumed, else the one that stands in the way (for GONE, the tombstone).
    `previous` is how the earlier upload under the name ended, if it ended and is not forgotten; COMPLETE if the upload
    is to replace a complete file.
    `replaced` is the end of the upload that this open has aborted: its stream is fenced and its bytes may go.
    """

    outcome: Outcome
    upload: Upload | None = None
    previous: State | None = None
    replaced: End | None = None


class Progress(NamedTuple):
    """The durable ranges of an upload, all of them. A tuple, since there are thousands a second."""

    upload_id: int
    epoch: int
    ranges: tuple[DigestedRange, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class Completion:
    """All bytes are durable and the digests fit."""

    upload_id: int
    epoch: int
    size: int
    crc32c: int
    sha256: bytes | None
    ranges: tuple[DigestedRange, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class Completed:
    """The complete upload, and the end of the one that it replaces: its bytes may go."""

    upload: Upload
    superseded: End | None


class Position(NamedTuple):
    """A place in an ordered listing: that of the row last seen."""

    time_ms: int
    id: int


@dataclass(frozen=True, slots=True)
class ListQuery:
    """One page of a tenant's uploads, newest first by (created_ms, id).

    None and the empty set filter nothing; times are inclusive; `limit` is 1 to PAGE_ROWS_MAX. Raises ValueError.
    """

    tenant: str
    limit: int
    device: str | None = None
    states: frozenset[State] = frozenset()
    name_prefix: str | None = None
    updated_from_ms: int | None = None
    updated_to_ms: int | None = None
    after: Position | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= PAGE_ROWS_MAX:
            raise ValueError(f"a page of {self.limit} uploads was asked for: ask for 1 to {PAGE_ROWS_MAX}")


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` uploads, and where the next page starts, if there may be more.

    A page may be short, or empty, and still have a `next`: a filter that few uploads pass is not searched without end.
    """

    uploads: tuple[Upload, ...]
    next: Position | None


@dataclass(frozen=True, slots=True)
class Device:
    """A device that was enrolled (`key`: 32 bytes derived from its secret), or one that is merely disabled (None).

    `generation` counts the secrets that it was given: 0 for one that was never enrolled.
    """

    tenant: str
    device: str
    key: bytes | None = field(repr=False)
    created_ms: int
    disabled_ms: int | None = None
    generation: int = 1


@dataclass(frozen=True, slots=True)
class CleanupReport:
    """What one pass did, or with `dry_run` would do, in files; `stopped` says why it ended early, None if it did not.

    `freed_bytes` of a dry run are those that the catalog knows.
    """

    dry_run: bool
    stale_deleted: int
    stale_kept: int
    retention_expired: int
    rejected_deleted: int
    tombstones_purged: int
    orphans_quarantined: int
    freed_bytes: int
    stopped: str | None
