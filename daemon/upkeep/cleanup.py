"""Removes what nobody will ask for again: stale, expired and rejected uploads, old tombstones; has orphans put aside.

It would rather remove nothing than too much. A pass stops before it has removed anything when the clocks disagree, or
when more would go than the policy allows. An upload is ended under the epoch that it was found with, so one that is
resumed at that very moment stays. The row ends before the bytes go: a pass that dies leaves bytes without a row,
which a later pass finds as orphans, never a row without its bytes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.adapters.entropy import Entropy
from daemon.catalog.expiry import ExpiryPolicy, expired_before_ms, parked_before_ms
from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import TOMBSTONES, CleanupReport, Position, State, Upload
from daemon.storage.interface import Contents, Inventory
from daemon.telemetry.metrics import CleanupOutcome, CleanupResult, Metrics, StorageFailure
from daemon.upkeep.orphans import OrphanSearch, Place
from protocol.constants import UploadState

BATCH_UPLOADS = 100
"""Uploads that end in one transaction: enough to share its sync, few enough to delay no commit."""

REMOVED_FREELY = 10
"""So few uploads may go whatever part of all they are, or the only one of a small installation could never expire."""


_EXPIRIES = {
    State.RECEIVING: CleanupResult.STALE_DELETED,
    State.PARTIAL: CleanupResult.STALE_DELETED,
    State.COMPLETE: CleanupResult.RETENTION_EXPIRED,
    State.REJECTED: CleanupResult.REJECTED_DELETED,
}
"""How the expiry of an upload in each state is counted."""


@dataclass(frozen=True, slots=True)
class CleanupPolicy:
    """What an operator wants removed, and when.

    `max_fraction` (above 0, up to 1) of all uploads that hold bytes is the most that one pass may remove. If more than
    this fraction of the stored files belongs to no upload, none of them is put aside.
    """

    interval_s: float
    jitter: float
    expiry: ExpiryPolicy
    tombstone_s: float
    max_fraction: float
    clock_skew_max_s: float


class CleanupBusy(Exception):
    """A pass is under way already; its report will tell what this one would have."""


class Live(Protocol):
    """Knows which uploads are in use."""

    def is_live(self, upload_id: int) -> bool:
        """Whether a connection has the upload open, or bytes of it are on their way to the disk."""
        ...


class _Stopped(Exception):
    """The pass must not go on."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """Uploads in `state` that were last updated before `before_ms` move to `to`."""

    result: CleanupResult
    state: State
    before_ms: int
    to: State


class Cleanup:
    """Cleans up on a timer and on demand, one pass at a time. `policy` may change at any time."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        contents: Contents,
        inventory: Inventory,
        uploads: Live,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
        log: BoundLogger,
        policy: CleanupPolicy,
    ) -> None:
        self._catalog = catalog
        self._contents = contents
        self._inventory = inventory
        self._uploads = uploads
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._log = log
        self._is_running = False
        self._place = Place()
        self._seen_wall_ms = clock.wall_ms()
        self._seen_monotonic_s = clock.monotonic_s()
        self.policy = policy

    async def run(self) -> None:
        """A pass each interval, until cancelled. What fails is reported and tried again with the next one."""
        while True:
            policy = self.policy
            spread = self._entropy.uniform(-policy.jitter, policy.jitter)
            await asyncio.sleep(policy.interval_s * (1 + spread))
            if not self._is_running:
                await self.once(dry_run=False)

    async def once(self, dry_run: bool) -> CleanupReport:
        """One pass; with `dry_run` it only counts and changes nothing. Raises CleanupBusy."""
        if self._is_running:
            raise CleanupBusy("a cleanup pass is under way: ask again when it is over")
        self._is_running = True
        started_s = self._clock.monotonic_s()
        parts = (self._catalog, self._contents, self._inventory, self._uploads, self._metrics)
        one = _Pass(*parts, self.policy, self._clock, dry_run, self._place)
        outcome, stopped = CleanupOutcome.DONE, None
        try:
            self._check_clocks(dry_run)
            await one.remove()
            await one.purge()
            await one.quarantine()
        except _Stopped as reason:
            outcome, stopped = CleanupOutcome.STOPPED, str(reason)
        except (CatalogFailed, OSError) as error:
            outcome, stopped = CleanupOutcome.FAILED, f"failed: {error}"
        finally:
            self._is_running = False
        if not dry_run:
            self._place = one.orphans.place
            self._metrics.cleanup_done(outcome, self._clock.monotonic_s() - started_s, self._clock.wall_ms())
        report = one.report(stopped)
        self._tell(outcome, report)
        return report

    def _check_clocks(self, dry_run: bool) -> None:
        """Whether the wall clock was set since the last pass. The next pass measures from here: by then an operator
        had an interval's time to see the report and put the clock right."""
        wall_ms, monotonic_s = self._clock.wall_ms(), self._clock.monotonic_s()
        passed_s = monotonic_s - self._seen_monotonic_s
        skew_s = (wall_ms - self._seen_wall_ms) / 1000 - passed_s
        if not dry_run:
            self._seen_wall_ms, self._seen_monotonic_s = wall_ms, monotonic_s
        if abs(skew_s) > self.policy.clock_skew_max_s:
            raise _Stopped(
                f"the wall clock was set by {skew_s:+.0f} s within {passed_s:.0f} s, so ages cannot be trusted: "
                "check the machine's time; the next pass goes on unless the clock is set again"
            )

    def _tell(self, outcome: CleanupOutcome, report: CleanupReport) -> None:
        tell = {
            CleanupOutcome.DONE: self._log.info,
            CleanupOutcome.STOPPED: self._log.warning,
            CleanupOutcome.FAILED: self._log.error,
        }[outcome]
        tell(
            f"cleanup {outcome.value}",
            dry_run=report.dry_run,
            stale_deleted=report.stale_deleted,
            stale_kept=report.stale_kept,
            retention_expired=report.retention_expired,
            rejected_deleted=report.rejected_deleted,
            tombstones_purged=report.tombstones_purged,
            orphans_quarantined=report.orphans_quarantined,
            freed_bytes=report.freed_bytes,
            stopped=report.stopped,
        )


class _Pass:
    """One pass, at one time. Between any two batches, whatever else the catalog and storage are asked comes first."""

    def __init__(
        self,
        catalog: Catalog,
        contents: Contents,
        inventory: Inventory,
        uploads: Live,
        metrics: Metrics,
        policy: CleanupPolicy,
        clock: Clock,
        dry_run: bool,
        place: Place,
    ) -> None:
        self._catalog = catalog
        self._contents = contents
        self._uploads = uploads
        self._metrics = metrics
        self._policy = policy
        self._now_ms = clock.wall_ms()
        self._dry_run = dry_run
        self.orphans = OrphanSearch(catalog, inventory, uploads.is_live, self._now_ms, place)
        self._files: Counter[CleanupResult] = Counter()
        self._freed_bytes = 0

    def report(self, stopped: str | None) -> CleanupReport:
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
        """End uploads whose time is over, unless they are too many."""
        rules = self._rules()
        found = {rule: await self._count(rule) for rule in rules}
        going = sum(count for rule, (count, _) in found.items() if rule.to in TOMBSTONES)
        if self._dry_run:
            for rule, (count, size_bytes) in found.items():
                self._did(rule.result, count, size_bytes if rule.to in TOMBSTONES else 0)
        what = "uploads that hold bytes would be removed"
        self._check_fraction(going, await self._catalog.holding(), what, freely=REMOVED_FREELY)
        if not self._dry_run:
            for rule in rules:
                await self._apply(rule)

    async def purge(self) -> None:
        """Forget old tombstones."""
        before_ms = self._now_ms - int(self._policy.tombstone_s * 1000)
        if self._dry_run:
            for state in sorted(TOMBSTONES):
                async for batch in self._older(state, before_ms):
                    self._did(CleanupResult.TOMBSTONES_PURGED, len(batch))
            return
        purged = BATCH_UPLOADS
        while purged == BATCH_UPLOADS:
            purged = await self._catalog.purge_tombstones(before_ms, BATCH_UPLOADS)
            self._did(CleanupResult.TOMBSTONES_PURGED, purged)

    async def quarantine(self) -> None:
        """Put aside what belongs to no upload, unless it is so much that rather the catalog is wrong."""
        lot = await self.orphans.find()
        if self._dry_run:
            self._did(CleanupResult.ORPHANS_QUARANTINED, len(lot.found))
        what = "stored files belong to no upload; is this the right catalog?"
        self._check_fraction(len(lot.found), lot.searched, what, freely=0)
        if not self._dry_run:
            for orphan in lot.found:
                if await self.orphans.put_aside(orphan):
                    self._did(CleanupResult.ORPHANS_QUARANTINED, 1)

    def _rules(self) -> list[_Rule]:
        expiry = self._policy.expiry
        rules = [
            _Rule(result, state, before_ms, State.EXPIRED)
            for state, result in _EXPIRIES.items()
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
        """How many uploads a rule is about, and their bytes."""
        count = size_bytes = 0
        async for batch in self._older(rule.state, rule.before_ms):
            count += len(batch)
            size_bytes += sum(upload.received_bytes for upload in batch)
        return count, size_bytes

    async def _apply(self, rule: _Rule) -> None:
        async for batch in self._older(rule.state, rule.before_ms):
            # Asked for in one step, so that one transaction ends them all.
            ended = await asyncio.gather(
                *(self._carry_out(rule, each) for each in batch),
                return_exceptions=True,
            )
            failures = [each for each in ended if isinstance(each, BaseException)]
            for each in ended:
                if isinstance(each, Upload):
                    await self._ended(rule, each, failures)
            if failures:
                raise failures[0]

    async def _carry_out(self, rule: _Rule, upload: Upload) -> Upload | None:
        if rule.to is State.PARTIAL:
            return await self._catalog.park(upload.id, self._now_ms, upload.epoch)
        return await self._catalog.end(upload.id, rule.to, self._now_ms, upload.epoch)

    async def _ended(self, rule: _Rule, upload: Upload, failures: list[BaseException]) -> None:
        if rule.to not in TOMBSTONES:
            self._did(rule.result, 1)
            return
        self._metrics.ended[UploadState[rule.to.name]] += 1
        freed_bytes = 0
        try:
            freed_bytes = await self._contents.remove(upload.id)
        except OSError as error:
            self._metrics.storage_failures[StorageFailure.DELETE] += 1
            failures.append(error)
        self._did(rule.result, 1, freed_bytes)

    def _check_fraction(self, going: int, of: int, what: str, *, freely: int) -> None:
        if going > max(freely, self._policy.max_fraction * of):
            raise _Stopped(
                f"{going} of {of} {what}; cleanup.max_fraction = {self._policy.max_fraction:g} allows no more than "
                "that part: check clock and settings, and raise it if this is meant"
            )

    def _did(self, result: CleanupResult, files: int, freed_bytes: int = 0) -> None:
        self._files[result] += files
        self._freed_bytes += freed_bytes
        if not self._dry_run:
            self._metrics.cleanup_files[result] += files
            self._metrics.cleanup_freed_bytes += freed_bytes
