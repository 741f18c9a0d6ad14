"""Finds what keeps the daemon from receiving and serving files, for `/readyz`, `uplinkd status` and the watchdog."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from daemon.adapters.clock import Clock
from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.ingest.admission import Admission
from daemon.ingest.committer import Committer
from daemon.ingest.free_space import Disk

STUCK_S = 30.0
"""A commit cycle that takes longer is stuck: even a slow disk syncs a cycle in a fraction of this time."""

ANSWER_S = 2.0
"""How long a health check waits for the catalog."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps the daemon from doing its work."""

    component: str
    detail: str


@dataclass(frozen=True, slots=True)
class Health:
    """Checks the parts that the daemon cannot work without."""

    catalog: Catalog
    disk: Disk
    committer: Committer
    admission: Admission
    clock: Clock
    data_dir: Path

    async def problems(self) -> list[Problem]:
        """All current problems; empty when the daemon can do its work."""
        problems = []
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.catalog.ping()
        except TimeoutError:
            problems.append(Problem("catalog", f"no answer within {ANSWER_S:g} s: look at the disk of {self.data_dir}"))
        except CatalogFailed as error:
            problems.append(Problem("catalog", str(error)))
        if detail := self.disk.problem(self.admission.policy.disk_free_min_bytes):
            problems.append(Problem("disk", detail))
        if stuck_s := self.commit_stuck_s():
            problems.append(Problem("committer", f"a commit cycle has been under way for {stuck_s:.0f} s"))
        return problems

    def commit_stuck_s(self) -> float:
        """How long the current commit cycle has been stuck, in seconds; 0 if it is not."""
        started_s = self.committer.oldest_cycle_s
        if started_s is None:
            return 0.0
        elapsed_s = self.clock.monotonic_s() - started_s
        return elapsed_s if elapsed_s > STUCK_S else 0.0
