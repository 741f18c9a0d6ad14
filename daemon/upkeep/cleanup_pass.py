"""One pass of the cleanup.

It removes nothing if it would remove more than the policy allows. It ends an upload only under the epoch that it found,
so an upload that a device resumes at that moment stays. The row ends before the bytes go: a pass that dies leaves bytes
without a row, which a later pass quarantines, and never a row without its bytes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.catalog.expiry import ExpiryPolicy, expired_before_ms, parked_before_ms
from daemon.catalog.interface import Catalog
from daemon.catalog.records import TOMBSTONES, CleanupReport, Position, State, Upload
from daemon.storage.interface import Contents, Inventory
from daemon.telemetry.metrics import CleanupResult, Metrics, StorageFailure
from daemon.upkeep.orphans import OrphanSearch, SearchState
from protocol.constants import UploadState

BATCH_UPLOADS = 100
"""Uploads that end in one transaction: enough to share its sync, few enough to delay no commit."""

REMOVED_FREELY = 10
"""A pass may always remove this many uploads. Otherwise the last ones of a small installation would never expire, since
they are more than `max_fraction` of all."""

_RESULTS = {
    State.RECEIVING: CleanupResult.STALE_DELETED,
    State.PARTIAL: CleanupResult.STALE_DELETED,
    State.COMPLETE: CleanupResult.RETENTION_EXPIRED,
    State.REJECTED: CleanupResult.REJECTED_DELETED,
}
"""How the expiry of an upload in each state is counted."""


@dataclass(frozen=True, slots=True)
class CleanupPolicy:
    """What an operator wants removed, and when.

    One pass removes at most `max_fraction` (above 0, up to 1) of the uploads that hold bytes. If more than this part of
    the stored files belongs to no upload, it quarantines none of them.
    """

    interval_s: float
    jitter: float
    expiry: ExpiryPolicy
    tombstone_s: float
    max_fraction: float
    clock_skew_max_s: float


class Live(Protocol):
    """Knows which uploads are in use."""

    def is_live(self, upload_id: int) -> bool:
        """Whether a connection has the upload open, or bytes of it are on their way to the disk."""
        ...


@dataclass(frozen=True, slots=True)
class Stores:
    """What a pass cleans up."""

    catalog: Catalog
    contents: Contents
    inventory: Inventory
    uploads: Live


class CleanupStopped(Exception):
    """The pass must not go on. The text says why, and what the operator should do."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """Uploads in `state` that were last updated before `before_ms` move to `to`."""

    result: CleanupResult
    state: State
    before_ms: int
    to: State


class CleanupPass:
    """One pass, as of `now_ms`. It works in batches, and requests of others come between two of them."""

    def __init__(
        self,
        stores: Stores,
        metrics: Metrics,
        policy: CleanupPolicy,
        now_ms: int,
        search: SearchState,
        *,
        dry_run: bool,
    ) -> None:
        """`search` is where the search for orphans continues. With `dry_run` the pass only counts."""
        self._catalog = stores.catalog
        self._contents = stores.contents
        self._uploads = stores.uploads
        self._metrics = metrics
        self._policy = policy
        self._now_ms = now_ms
        self._dry_run = dry_run
        self.orphans = OrphanSearch(stores.catalog, stores.inventory, stores.uploads.is_live, now_ms, search)
        self._files: Counter[CleanupResult] = Counter()
        self._freed_bytes = 0

    def report(self, stopped: str | None) -> CleanupReport:
        """What the pass has done so far. `stopped` says why it ended early, None if it did not."""
        return CleanupReport(
            dry_run=self._dry_run,
            stale_deleted=self._files[CleanupResult.STALE_DELETED],
            stale_kept=self._files[CleanupResult.STALE_KEPT],
            retention_expired=self._files[CleanupResult.RETENTION_EXPIRED],
            rejected_deleted=self._files[CleanupResult.REJECTED_DELETED],
            tombstones_purged=self._files[CleanupResult.TOMBSTONES_PURGED],
            orphans_quarantined=self._files[CleanupResult.ORPHANS_QUARANTINED],
            freed_bytes=self._freed_bytes,
            stopped=stopped,
        )

    async def remove(self) -> None:
        """End the uploads whose time is over. Raises CleanupStopped if they are too many, CatalogFailed, OSError."""
        rules = self._rules()
        found = {rule: await self._count(rule) for rule in rules}
        removed = sum(count for rule, (count, _) in found.items() if rule.to in TOMBSTONES)
        if self._dry_run:
            for rule, (count, size_bytes) in found.items():
                self._count_done(rule.result, count, size_bytes if rule.to in TOMBSTONES else 0)
        what = "uploads that hold bytes would be removed"
        self._check_fraction(removed, await self._catalog.holding(), what, freely=REMOVED_FREELY)
        if not self._dry_run:
            for rule in rules:
                await self._apply(rule)

    async def purge(self) -> None:
        """Forget old tombstones. Raises CatalogFailed."""
        before_ms = self._now_ms - int(self._policy.tombstone_s * 1000)
        if self._dry_run:
            for state in sorted(TOMBSTONES):
                async for batch in self._older(state, before_ms):
                    self._count_done(CleanupResult.TOMBSTONES_PURGED, len(batch))
            return
        purged = BATCH_UPLOADS
        while purged == BATCH_UPLOADS:
            purged = await self._catalog.purge_tombstones(before_ms, BATCH_UPLOADS)
            self._count_done(CleanupResult.TOMBSTONES_PURGED, purged)

    async def quarantine(self) -> None:
        """Quarantine files that belong to no upload.

        Raises CleanupStopped if they are so many that rather the catalog is wrong, CatalogFailed and OSError.
        """
        sample = await self.orphans.find()
        if self._dry_run:
            self._count_done(CleanupResult.ORPHANS_QUARANTINED, len(sample.found))
        what = "stored files belong to no upload; is this the right catalog?"
        self._check_fraction(len(sample.found), sample.searched, what, freely=0)
        if not self._dry_run:
            for orphan in sample.found:
                if await self.orphans.quarantine(orphan):
                    self._count_done(CleanupResult.ORPHANS_QUARANTINED, 1)

    def _rules(self) -> list[_Rule]:
        expiry = self._policy.expiry
        rules = [
            _Rule(result, state, before_ms, State.EXPIRED)
            for state, result in _RESULTS.items()
            if (before_ms := expired_before_ms(expiry, state, self._now_ms)) is not None
        ]
        before_ms = parked_before_ms(expiry, self._now_ms)
        if before_ms is not None:
            rules.append(_Rule(CleanupResult.STALE_KEPT, State.RECEIVING, before_ms, State.PARTIAL))
        return rules

    async def _older(self, state: State, before_ms: int) -> AsyncIterator[Sequence[Upload]]:
        """Batches of uploads that are not in use."""
        after: Position | None = None
        while batch := await self._catalog.older(state, before_ms, BATCH_UPLOADS, after):
            after = Position(batch[-1].updated_ms, batch[-1].id)
            yield [upload for upload in batch if not self._uploads.is_live(upload.id)]

    async def _count(self, rule: _Rule) -> tuple[int, int]:
        """How many uploads match the rule, and how many bytes they hold."""
        count = size_bytes = 0
        async for batch in self._older(rule.state, rule.before_ms):
            count += len(batch)
            size_bytes += sum(upload.received_bytes for upload in batch)
        return count, size_bytes

    async def _apply(self, rule: _Rule) -> None:
        async for batch in self._older(rule.state, rule.before_ms):
            # Requests that arrive together share one transaction.
            ended = await asyncio.gather(
                *(self._move(rule, upload) for upload in batch),
                return_exceptions=True,
            )
            failures = [each for each in ended if isinstance(each, BaseException)]
            for each in ended:
                if isinstance(each, Upload):
                    await self._clear_away(rule, each, failures)
            if failures:
                raise failures[0]

    async def _move(self, rule: _Rule, upload: Upload) -> Upload | None:
        if rule.to is State.PARTIAL:
            return await self._catalog.park(upload.id, self._now_ms, upload.epoch)
        return await self._catalog.end(upload.id, rule.to, self._now_ms, upload.epoch)

    async def _clear_away(self, rule: _Rule, upload: Upload, failures: list[BaseException]) -> None:
        """Remove the bytes of an upload that has ended, and count it. Failures are added to `failures`."""
        if rule.to not in TOMBSTONES:
            self._count_done(rule.result, 1)
            return
        self._metrics.ended[UploadState[rule.to.name]] += 1
        freed_bytes = 0
        try:
            freed_bytes = await self._contents.remove(upload.id)
        except OSError as error:
            self._metrics.storage_failures[StorageFailure.DELETE] += 1
            failures.append(error)
        self._count_done(rule.result, 1, freed_bytes)

    def _check_fraction(self, count: int, total: int, what: str, *, freely: int) -> None:
        if count > max(freely, self._policy.max_fraction * total):
            raise CleanupStopped(
                f"{count} of {total} {what}; cleanup.max_fraction = {self._policy.max_fraction:g} allows no more than "
                "that part: check clock and settings, and raise it if this is meant"
            )

    def _count_done(self, result: CleanupResult, files: int, freed_bytes: int = 0) -> None:
        self._files[result] += files
        self._freed_bytes += freed_bytes
        if not self._dry_run:
            self._metrics.cleanup_files[result] += files
            self._metrics.cleanup_freed_bytes += freed_bytes
