"""What the daemon asks of a catalog, whichever database holds it.

Every change is durable before its call returns. All methods raise CatalogFailed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from daemon.catalog.records import (
    Completed,
    Completion,
    Device,
    ListQuery,
    OpenRequest,
    OpenResult,
    Page,
    Position,
    Progress,
    State,
    Upload,
    Usage,
)


class CatalogNewer(Exception):
    """The catalog was written by a newer program; this one would not understand it."""


class CatalogFailed(Exception):
    """The catalog did not do what it was asked: nothing of that operation is promised.

    `disk_full`: there was no room; the same operation may succeed once there is.
    """

    def __init__(self, message: str, *, disk_full: bool = False) -> None:
        super().__init__(message)
        self.disk_full = disk_full


class Catalog(Protocol):
    """Uploads and devices. Concurrent calls share transactions; each succeeds or fails by itself."""

    async def open(self, request: OpenRequest) -> OpenResult:
        """Create, resume or refuse, as `opening.decide` says. A resume bumps the epoch, which fences its elder."""
        ...

    async def commit(self, progress: Sequence[Progress]) -> Sequence[bool]:
        """Record durable ranges, all in one transaction. False: fenced, the epoch or the state is another by now."""
        ...

    async def complete(self, completion: Completion) -> Completed | None:
        """End a receiving upload as complete, and with it the complete one that it replaces. None: fenced."""
        ...

    async def end(self, upload_id: int, state: State, now_ms: int, epoch: int | None = None) -> Upload | None:
        """End an upload in `state` where ENDINGS allows it; with `epoch`, only if it is the upload's.

        Returns the upload as it is now, or None if it is unknown, fenced, or in a state that does not lead there.
        An upload that was to replace a complete file gives the name back to it.
        """
        ...

    async def park(self, upload_id: int, now_ms: int, epoch: int | None = None) -> Upload | None:
        """Keep a receiving upload that has gone stale as partial. Returns as `end`."""
        ...

    async def get(self, upload_id: int) -> Upload | None: ...

    async def find(self, tenant: str, device: str, name: str) -> Upload | None:
        """What the name stands for: the upload under way, else the complete one, else the one that ended last."""
        ...

    async def find_readable(self, tenant: str, device: str, name: str) -> Upload | None:
        """What a reader gets under the name: the complete file, even while it is being replaced, else as `find`."""
        ...

    async def list(self, query: ListQuery) -> Page: ...

    async def older(self, state: State, before_ms: int, limit: int, after: Position | None = None) -> Sequence[Upload]:
        """Uploads in `state` that were last updated before `before_ms`, oldest first by (updated_ms, id).

        What cleanup looks for: stale (receiving, partial), expired (complete) and rejected uploads.
        """
        ...

    async def purge_tombstones(self, before_ms: int, limit: int) -> int:
        """Forget at most `limit` uploads that were aborted, deleted or expired before `before_ms`. Returns how many."""
        ...

    async def existing(self, upload_ids: Collection[int]) -> frozenset[int]:
        """Those of the ids whose upload holds bytes."""
        ...

    async def holding(self) -> int:
        """How many uploads hold bytes."""
        ...

    async def counts(self) -> Mapping[State, int]:
        """How many uploads there are in each state."""
        ...

    async def receiving(self, after_id: int, limit: int) -> Sequence[Upload]:
        """Receiving uploads with an id above `after_id`, by id."""
        ...

    async def add_device(self, device: Device, *, replace: bool = False) -> bool:
        """Enrol a device; one that was disabled before stays so.

        False when it is enrolled already: nothing changes, unless `replace` gives it the new key. The catalog counts
        the device's generation itself.
        """
        ...

    async def device(self, tenant: str, device: str) -> Device | None: ...

    async def list_devices(self, tenant: str | None = None) -> Sequence[Device]:
        """The tenant's devices, or all tenants', by tenant and name."""
        ...

    async def set_disabled(self, tenant: str, device: str, disabled: bool, now_ms: int) -> bool:
        """Disable or enable a device, enrolled or not. Returns whether that changed anything."""
        ...

    async def disabled(self) -> frozenset[tuple[str, str]]:
        """(tenant, device) of every disabled device."""
        ...

    async def replaced(self) -> Mapping[tuple[str, str], int]:
        """The generation of every device, by (tenant, device), whose secret was ever replaced."""
        ...

    async def usage(self, tenant: str, device: str) -> Usage:
        """What the device has in the catalog. Bytes count as its quota counts them (`Upload.held_bytes`)."""
        ...

    async def ping(self) -> None:
        """Return once the catalog has taken and ended a transaction."""
        ...

    async def close(self) -> None:
        """Finish what was asked and let the database go. Every later call fails."""
        ...
