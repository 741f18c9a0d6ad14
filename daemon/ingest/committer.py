"""Group commit: one cycle makes bytes durable, one catalog transaction records them, then the ACKs go out.

While one cycle is recorded the next one is synced. Cycles keep their order. PROTOCOL.md §7.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.adapters.clock import Clock
from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import Completed, Completion, Progress
from daemon.ingest.failures import catalog_failure, failure_kind, storage_failure
from daemon.ingest.live_upload import Cut, LiveUpload
from daemon.shares import share_out
from daemon.storage.interface import Staging
from daemon.telemetry.metrics import Metrics, StorageFailure
from protocol.errors import ErrorCode
from protocol.ranges import DigestedRange

TURN_CUTS = 64
"""Answered in one turn of the event loop: some milliseconds, most of it sending ACKs. A thousand would make everybody
wait."""


DEVICE_UPLOADS_MAX = 64
"""Uploads of one device in one cycle; its others wait for the next. A cycle of ten thousand takes a second, and all
whose bytes it holds wait for its end."""


class CommitListener(Protocol):
    """Decides what follows when bytes are durable, or lost."""

    def completion(self, cut: Cut) -> Completion | None:
        """How the cut completes its upload, if it does."""
        ...

    def progressed(self, cut: Cut) -> None:
        """The cut is durable and recorded."""
        ...

    def completed(self, cut: Cut, completed: Completed) -> None:
        """The upload of the cut is complete."""
        ...

    def lost(self, upload: LiveUpload, code: ErrorCode, detail: str) -> None:
        """The bytes of the upload that are not durable are lost, or another stream's."""
        ...


@dataclass(frozen=True, slots=True)
class CycleSettings:
    """A cycle is cut at `cycle_bytes`, each chunk's overhead included, or `cycle_s` after the first of them."""

    cycle_bytes: int
    cycle_s: float


@dataclass(frozen=True, slots=True)
class _SyncedCycle:
    cuts: list[Cut]
    size_bytes: int
    failed: dict[int, OSError]
    started_s: float


class Committer:
    """Runs the cycles. `run` must be awaited by an owner for as long as bytes arrive."""

    def __init__(
        self, staging: Staging, catalog: Catalog, clock: Clock, metrics: Metrics, settings: CycleSettings
    ) -> None:
        self._staging = staging
        self._catalog = catalog
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._dirty: dict[int, LiveUpload] = {}
        self._due = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._cycles = 0
        self._timer: asyncio.TimerHandle | None = None
        self._synced: asyncio.Queue[_SyncedCycle] = asyncio.Queue(maxsize=1)
        self._waiting_bytes = 0
        self.pending_bytes = 0
        self.finished_cycles = 0
        self.oldest_cycle_s: float | None = None

    def arrived(self, upload: LiveUpload, count: int) -> None:
        """Bytes of the upload, charged as `count`, were handed to staging."""
        upload.arrived(count, self._clock.monotonic_s())
        self.pending_bytes += count
        self._waiting_bytes += count
        self.touch(upload, urgent=self._waiting_bytes >= self._settings.cycle_bytes)

    def touch(self, upload: LiveUpload, *, urgent: bool = False) -> None:
        """Put the upload into the next cycle, which is cut at once if `urgent`."""
        self._dirty[upload.id] = upload
        self._idle.clear()
        if urgent:
            self._due.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._settings.cycle_s, self._due.set)

    async def drained(self) -> None:
        """Return once nothing waits for a cycle."""
        self._due.set()
        await self._idle.wait()

    async def run(self, listener: CommitListener) -> None:
        """Cycle until cancelled."""
        async with asyncio.TaskGroup() as stages:
            stages.create_task(self._sync_cycles())
            stages.create_task(self._record_cycles(listener))

    async def _sync_cycles(self) -> None:
        while True:
            await self._due.wait()
            cuts, size_bytes = self._cut()
            if not cuts:
                self.pending_bytes -= size_bytes
                continue
            started_s = self._clock.monotonic_s()
            if self.oldest_cycle_s is None:
                self.oldest_cycle_s = started_s
            failed = await self._sync(cuts)
            await self._synced.put(_SyncedCycle(cuts, size_bytes, failed, started_s))

    async def _sync(self, cuts: list[Cut]) -> dict[int, OSError]:
        synced: asyncio.Future[dict[int, OSError]] = asyncio.get_running_loop().create_future()

        def report(failed: dict[int, OSError]) -> None:
            # The committer may have been cancelled while the disk was at work.
            if not synced.done():
                synced.set_result(failed)

        self._staging.sync([cut.upload.id for cut in cuts], report)
        return await synced

    def _cut(self) -> tuple[list[Cut], int]:
        """The cuts of the next cycle, and how many bytes that arrived belong to it."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        uploads = list(self._dirty.values())
        self._dirty = {}
        if len(uploads) > DEVICE_UPLOADS_MAX:
            uploads, later = share_out(uploads, _device_of, DEVICE_UPLOADS_MAX)
            self._dirty = {upload.id: upload for upload in later}
        size_bytes = self._waiting_bytes
        if self._dirty:
            size_bytes = sum(upload.unanswered_bytes for upload in uploads)
            self._due.set()
        self._waiting_bytes -= size_bytes
        cuts = [upload.cut() for upload in uploads if not upload.is_over]
        self._cycles += bool(cuts)
        self._set_idle()
        return cuts, size_bytes

    async def _record_cycles(self, listener: CommitListener) -> None:
        while True:
            cycle = await self._synced.get()
            await self._record(cycle, listener)
            self._cycles -= 1
            self.finished_cycles += 1
            self.oldest_cycle_s = None if not self._cycles else self._clock.monotonic_s()
            self._set_idle()

    def _set_idle(self) -> None:
        if not self._cycles and not self._dirty:
            self._idle.set()

    async def _record(self, cycle: _SyncedCycle, listener: CommitListener) -> None:
        cuts = []
        for cut in cycle.cuts:
            error = cycle.failed.get(cut.upload.id)
            if error is not None:
                self._metrics.storage_failures[failure_kind(error, StorageFailure.SYNC)] += 1
                listener.lost(cut.upload, *storage_failure(error))
            elif not cut.upload.is_over:
                cuts.append(cut)
        completions = [(cut, completion) for cut in cuts if (completion := listener.completion(cut)) is not None]
        completing = {cut.upload.id for cut, _ in completions}
        progress = [cut for cut in cuts if cut.upload.id not in completing]
        # Asked for in one step, so that one transaction records all of it.
        results = await asyncio.gather(
            self._commit(progress),
            *(self._catalog.complete(completion) for _, completion in completions),
            return_exceptions=True,
        )
        committed, *completed = results
        recorded = [*progress, *(cut for cut, _ in completions)]
        answers = [*self._per_cut(committed, len(progress)), *completed]
        durable_bytes = 0
        for count, (cut, answer) in enumerate(zip(recorded, answers, strict=True), 1):
            durable_bytes += self._answer(cut, answer, listener)
            if not count % TURN_CUTS:
                await asyncio.sleep(0)
        now = self._clock.monotonic_s()
        self.pending_bytes -= cycle.size_bytes
        self._metrics.cycle_done(now - cycle.started_s, durable_bytes, len(cycle.cuts))

    async def _commit(self, cuts: list[Cut]) -> Sequence[bool]:
        if not cuts:
            return ()
        now_ms = self._clock.wall_ms()
        return await self._catalog.commit([Progress(cut.upload.id, cut.epoch, cut.ranges, now_ms) for cut in cuts])

    def _per_cut(self, result: object, count: int) -> Sequence[object]:
        return [result] * count if not isinstance(result, list | tuple) else result

    def _answer(self, cut: Cut, result: object, listener: CommitListener) -> int:
        """Report the result of a cut; returns how many more bytes are durable."""
        upload = cut.upload
        if isinstance(result, BaseException):
            if not isinstance(result, CatalogFailed):
                raise result
            kind = StorageFailure.DISK_FULL if result.disk_full else StorageFailure.CATALOG
            self._metrics.storage_failures[kind] += 1
            listener.lost(upload, *catalog_failure(result))
        elif isinstance(result, Completed):
            grown_bytes = self._mark_durable(cut)
            listener.completed(cut, result)
            return grown_bytes
        elif result:
            grown_bytes = self._mark_durable(cut)
            listener.progressed(cut)
            return grown_bytes
        elif not upload.is_over and upload.epoch != cut.epoch:
            # A takeover came between the cut and its record: the next cycle records the bytes for the new stream.
            self.touch(upload)
        elif not upload.is_over:
            listener.lost(upload, ErrorCode.FENCED, "the upload was taken over by another server")
        return 0

    def _mark_durable(self, cut: Cut) -> int:
        grown_bytes = _total_bytes(cut.ranges) - _total_bytes(cut.upload.durable)
        cut.upload.durable = cut.ranges
        if cut.received_s is not None:
            self._metrics.ack_latency.observe(self._clock.monotonic_s() - cut.received_s)
        return grown_bytes


def _device_of(upload: LiveUpload) -> tuple[str, str]:
    return upload.tenant, upload.device


def _total_bytes(ranges: Sequence[DigestedRange]) -> int:
    return sum(each.end - each.start for each in ranges)
