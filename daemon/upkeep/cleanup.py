"""Cleanup on a timer and on demand: ends stale, expired and rejected uploads, purges tombstones, quarantines orphans.

It would rather remove nothing than too much. If the wall clock was set since the last pass, it removes nothing.
"""

import asyncio

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.adapters.entropy import Entropy
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import CleanupReport
from daemon.telemetry.metrics import CleanupOutcome, Metrics
from daemon.upkeep.cleanup_pass import CleanupPass, CleanupPolicy, CleanupStopped, Stores
from daemon.upkeep.orphans import SearchState


class CleanupBusy(Exception):
    """A pass is running already. Its report serves this caller too."""


class Cleanup:
    """Runs one pass at a time. `policy` may change at any time."""

    def __init__(
        self,
        *,
        stores: Stores,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
        log: BoundLogger,
        policy: CleanupPolicy,
    ) -> None:
        self._stores = stores
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._log = log
        self._is_running = False
        self._search = SearchState()
        self._seen_wall_ms = clock.wall_ms()
        self._seen_monotonic_s = clock.monotonic_s()
        self.policy = policy

    async def run(self) -> None:
        """Run a pass each interval, until cancelled. A failure is reported, and the next pass tries again."""
        while True:
            policy = self.policy
            spread = self._entropy.uniform(-policy.jitter, policy.jitter)
            await asyncio.sleep(policy.interval_s * (1 + spread))
            if not self._is_running:
                await self.once(dry_run=False)

    async def once(self, dry_run: bool) -> CleanupReport:
        """Run one pass. With `dry_run` it only counts and changes nothing. Raises CleanupBusy."""
        if self._is_running:
            raise CleanupBusy("a cleanup pass is under way: ask again when it is over")
        self._is_running = True
        started_s = self._clock.monotonic_s()
        now_ms = self._clock.wall_ms()
        current = CleanupPass(self._stores, self._metrics, self.policy, now_ms, self._search, dry_run=dry_run)
        outcome, stopped = CleanupOutcome.DONE, None
        try:
            self._check_clocks(dry_run)
            await current.remove()
            await current.purge()
            await current.quarantine()
        except CleanupStopped as reason:
            outcome, stopped = CleanupOutcome.STOPPED, str(reason)
        except (CatalogFailed, OSError) as error:
            outcome, stopped = CleanupOutcome.FAILED, f"failed: {error}"
        finally:
            self._is_running = False
        if not dry_run:
            self._search = current.orphans.state
            self._metrics.cleanup_done(outcome, self._clock.monotonic_s() - started_s, self._clock.wall_ms())
        report = current.report(stopped)
        self._log_outcome(outcome, report)
        return report

    def _check_clocks(self, dry_run: bool) -> None:
        """Stop the pass if the wall clock was set since the last one.

        The next pass compares with this one. Until then the operator has an interval's time to set the clock right.
        """
        wall_ms, monotonic_s = self._clock.wall_ms(), self._clock.monotonic_s()
        passed_s = monotonic_s - self._seen_monotonic_s
        skew_s = (wall_ms - self._seen_wall_ms) / 1000 - passed_s
        if not dry_run:
            self._seen_wall_ms, self._seen_monotonic_s = wall_ms, monotonic_s
        if abs(skew_s) > self.policy.clock_skew_max_s:
            raise CleanupStopped(
                f"the wall clock was set by {skew_s:+.0f} s within {passed_s:.0f} s, so ages cannot be trusted: "
                "check the machine's time; the next pass goes on unless the clock is set again"
            )

    def _log_outcome(self, outcome: CleanupOutcome, report: CleanupReport) -> None:
        write = {
            CleanupOutcome.DONE: self._log.info,
            CleanupOutcome.STOPPED: self._log.warning,
            CleanupOutcome.FAILED: self._log.error,
        }[outcome]
        write(
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
