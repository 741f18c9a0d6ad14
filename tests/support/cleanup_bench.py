"""Cleanup of a real catalog and real files, with a policy, and things to be cleaned up."""

import os
from dataclasses import replace
from pathlib import Path

from daemon.catalog.expiry import ExpiryPolicy
from daemon.catalog.records import CleanupReport
from daemon.telemetry.metrics import Metrics
from daemon.upkeep.cleanup import Cleanup
from daemon.upkeep.cleanup_pass import CleanupPolicy, Stores
from tests.support.fake_machine import DAY_S, NOW_MS, CapturedLog, FakeClock, FakeEntropy
from tests.support.populated_store import Keeping

SHARD = 1
POLICY = CleanupPolicy(
    interval_s=300,
    jitter=0.1,
    expiry=ExpiryPolicy(stale_s=7 * DAY_S, keeps_stale=False, retention_s=0, rejected_s=DAY_S),
    tombstone_s=7 * DAY_S,
    max_fraction=0.5,
    clock_skew_max_s=60,
)
KEEPING_STALE = replace(POLICY, expiry=replace(POLICY.expiry, keeps_stale=True))
RETAINING = replace(POLICY, expiry=replace(POLICY.expiry, retention_s=7 * DAY_S))
NOTHING = CleanupReport(False, 0, 0, 0, 0, 0, 0, 0, None)
OLD_MS = NOW_MS - 8 * DAY_S * 1000
YOUNG_MS = NOW_MS - 6 * DAY_S * 1000


class LiveUploads:
    """What connections have open."""

    def __init__(self) -> None:
        self.ids: set[int] = set()

    def is_live(self, upload_id: int) -> bool:
        return upload_id in self.ids


def cleanup_of(
    kept: Keeping,
    uploads: LiveUploads,
    metrics: Metrics,
    *,
    clock: FakeClock,
    entropy: FakeEntropy,
    log: CapturedLog,
) -> Cleanup:
    """Cleanup under POLICY."""
    return Cleanup(
        stores=Stores(kept.catalog, kept.storage.contents, kept.storage.inventory, uploads),
        clock=clock,
        entropy=entropy,
        metrics=metrics,
        log=log.logger,
        policy=POLICY,
    )


def orphan(kept: Keeping, name: str, age_s: float = 2 * DAY_S, shard: int = SHARD) -> Path:
    """A stored file of no upload."""
    path = kept.root / "files" / f"{shard:02x}" / name
    path.write_bytes(b"nobody's")
    modified_s = NOW_MS / 1000 - age_s
    os.utime(path, (modified_s, modified_s))
    return path
