"""Which bytes of devices are let in: sizes, gaps, quotas, room on the disk. PROTOCOL.md §11."""

from collections.abc import ValuesView
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from daemon.adapters.clock import Clock
from daemon.catalog.interface import Catalog
from daemon.catalog.records import UNDER_WAY, OpenRequest, OpenResult, Outcome, State
from daemon.ingest.live_upload import Allowance, LiveUpload
from daemon.ingest.upload_rate import UploadRate
from protocol.constants import Disposition
from protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class UploadPolicy:
    """What an operator allows. 0 sets no limit for quota, uploads and size."""

    ranges_max: int
    quota_bytes_per_device: int
    uploads_max_per_device: int
    uploads_per_hour_per_device: int
    size_max_bytes: int
    disk_free_min_bytes: int
    tombstone_s: float


class Room(Protocol):
    """Room on the disk, as last measured; `total_bytes` is 0 while it never was."""

    free_bytes: int

    @property
    def total_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a stream ends, or why one of its chunks is not taken. The scope of `code` says which."""

    code: ErrorCode
    detail: str


_NO_QUOTA = "the device has no bytes left in its quota"
_NO_ROOM = "the device has no bytes, or no uploads, left in its quota"

_REFUSALS = {
    Outcome.CONTENT_CHANGED: ErrorCode.CONTENT_CHANGED,
    Outcome.GONE: ErrorCode.GONE,
    Outcome.NOT_FOUND: ErrorCode.NOT_FOUND,
    Outcome.QUOTA_EXCEEDED: ErrorCode.QUOTA_EXCEEDED,
}


class Admission:
    """Holds uploads to what an operator allows and the disk can hold. `policy` may change at any time."""

    def __init__(self, catalog: Catalog, disk: Room, clock: Clock, policy: UploadPolicy) -> None:
        self._catalog = catalog
        self._disk = disk
        self._rate = UploadRate(clock)
        self.policy = policy
        self._allowances: WeakValueDictionary[tuple[str, str], Allowance] = WeakValueDictionary()

    async def refuse_open(self, request: OpenRequest) -> Refusal | None:
        """Why an upload is not opened, before the catalog is asked to open it. Raises CatalogFailed."""
        size = request.size or 0
        if refusal := self.refuse_size(size):
            return refusal
        device = (request.tenant, request.device)
        refusal = self._refuse_room(size)
        if refusal is None and not self._rate.allows(device, self.policy.uploads_per_hour_per_device):
            refusal = Refusal(ErrorCode.QUOTA_EXCEEDED, "the device has begun as many uploads as it may in an hour")
        if refusal is None or request.disposition is Disposition.REPLACE:
            return refusal
        # Bytes that are there already take no more room, and a complete file takes none at all.
        known = await self._catalog.find(request.tenant, request.device, request.name)
        if known is not None and known.state is State.COMPLETE:
            return None
        if known is not None and known.state in UNDER_WAY:
            return self._refuse_room(max(size - known.received_bytes, 0))
        return refusal

    def began(self, request: OpenRequest) -> None:
        """The catalog has created an upload."""
        self._rate.begin((request.tenant, request.device), self.policy.uploads_per_hour_per_device)

    def refuse_size(self, size: int) -> Refusal | None:
        """Why no file may have this size; None where it may, or where it is 0, which stands for unknown."""
        largest = self.policy.size_max_bytes
        if largest and size > largest:
            return Refusal(ErrorCode.FILE_TOO_LARGE, f"{size} bytes; the largest file may have {largest}")
        disk_bytes = self._disk.total_bytes
        if size > disk_bytes - self.policy.disk_free_min_bytes and size and disk_bytes:
            return Refusal(ErrorCode.FILE_TOO_LARGE, f"{size} bytes; the server's disk could not hold them if empty")
        return None

    async def allow(self, upload: LiveUpload, live: ValuesView[LiveUpload]) -> None:
        """Count an upload against what its device's uploads of unknown size may still take. Raises CatalogFailed.

        `live` are all uploads that are being received, as they are when the catalog has answered.
        """
        quota = self.policy.quota_bytes_per_device
        device = (upload.tenant, upload.device)
        # A declared size takes from what they share, so that together they keep to the quota.
        if not quota or (upload.size is not None and device not in self._allowances):
            return
        used = await self._catalog.usage(upload.tenant, upload.device)
        allowance = self._allowances.setdefault(device, Allowance(0))
        allowance.left_bytes = quota - used.held_bytes - _unrecorded_bytes(device, live)
        if upload.size is None:
            upload.allowance = allowance

    def take(self, upload: LiveUpload, start: int, end: int, needed: int) -> Refusal | None:
        """Let [start, end) in and count its `needed` bytes that are not there yet, or return why not."""
        policy = self.policy
        gaps = upload.received.gaps_after(start, end)
        # A chunk that adds no gap is taken even when fewer gaps are allowed by now.
        if gaps > policy.ranges_max and gaps > len(upload.received.beyond_next()):
            return Refusal(ErrorCode.TOO_MANY_GAPS, f"{gaps} gaps; at most {policy.ranges_max} are kept")
        if refusal := self.refuse_size(end) or self._refuse_room(needed):
            return refusal
        allowance = upload.allowance
        if allowance is not None:
            if allowance.left_bytes < needed:
                return Refusal(ErrorCode.QUOTA_EXCEEDED, _NO_QUOTA)
            allowance.left_bytes -= needed
        self._disk.free_bytes -= needed
        return None

    def _refuse_room(self, size: int) -> Refusal | None:
        if self._disk.free_bytes - size < self.policy.disk_free_min_bytes:
            return Refusal(ErrorCode.DISK_FULL, "the server's disk has no room for this; nothing acknowledged is lost")
        return None


def refusal_of(result: OpenResult) -> Refusal | None:
    """Why the catalog opened nothing; None if it opened the upload."""
    code = _REFUSALS.get(result.outcome)
    return None if code is None else Refusal(code, _explain(result))


def _unrecorded_bytes(device: tuple[str, str], live: ValuesView[LiveUpload]) -> int:
    """Bytes of the device's uploads of unknown size that the catalog does not count yet."""
    theirs = [each for each in live if (each.tenant, each.device) == device]
    recorded = [sum(held.end - held.start for held in each.durable) for each in theirs]
    return sum(
        each.received.total_bytes - held for each, held in zip(theirs, recorded, strict=True) if each.size is None
    )


def _explain(result: OpenResult) -> str:
    match result.outcome:
        case Outcome.CONTENT_CHANGED:
            return "the name is known with another size, tag or digest: replace it, or use another name"
        case Outcome.GONE:
            return "the upload was deleted: replace it to send it again"
        case Outcome.NOT_FOUND:
            ended = f"; the last one was {result.previous.value}" if result.previous else ""
            return f"there is nothing to resume under this name{ended}"
        case _:
            return _NO_ROOM
