"""Uploads and their parts, on a disk and a catalog whose steps happen, fail or wait as the test says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from daemon.catalog.records import OpenRequest, OpenResult
from daemon.ingest.admission import Admission, Refusal, UploadPolicy
from daemon.ingest.committer import Committer, CycleSettings
from daemon.ingest.digester import Digester
from daemon.ingest.ends import Ends
from daemon.ingest.live_upload import LiveUpload
from daemon.ingest.live_uploads import LiveUploads
from daemon.ingest.uploads import Uploads
from daemon.tasks import Tasks, background
from daemon.telemetry.metrics import Metrics
from protocol.errors import ErrorCode
from tests.support.catalog_samples import REQUEST
from tests.support.fake_machine import CapturedLog, FakeClock
from tests.support.gated_catalog import ControlledCatalog
from tests.support.held_storage import HeldStorage
from tests.support.loop_turns import LoopThreads
from tests.support.upload_streams import CountedLease, Run, Stream

NEVER_S = 3600.0
"""Longer than any test, so that time never cuts a cycle."""

ROOMY = UploadPolicy(
    ranges_max=4,
    quota_bytes_per_device=0,
    uploads_max_per_device=0,
    uploads_per_hour_per_device=0,
    size_max_bytes=0,
    disk_free_min_bytes=1000,
    tombstone_s=3600,
)


@dataclass
class FakeDisk:
    """A disk with as much free space as the test sets."""

    free_bytes: int = 1_000_000
    total_bytes: int = 2**62


class CountingEntropy:
    """Entropy that gives a new id each time."""

    def __init__(self) -> None:
        self._next = 0

    def bytes(self, count: int) -> bytes:
        self._next += 1
        return (self._next - 1).to_bytes(count, "big")

    def uniform(self, low: float, high: float) -> float:
        return high


class Bench:
    """Uploads and their parts. Each arrival cuts a cycle unless `cycle_bytes` says otherwise."""

    def __init__(self, policy: UploadPolicy = ROOMY, cycle_bytes: int = 1, cycle_s: float = NEVER_S) -> None:
        self.clock = FakeClock()
        self.catalog = ControlledCatalog()
        self.storage = HeldStorage(self.catalog.recorded)
        self.metrics = Metrics(started_ms=0)
        self.log = CapturedLog()
        self.disk = FakeDisk()
        self.admission = Admission(self.catalog, self.disk, self.clock, policy)
        self.failures: list[BaseException] = []
        self.tasks = Tasks(self.failures.append)
        self.leases: list[CountedLease] = []
        settings = CycleSettings(cycle_bytes, cycle_s)
        self.committer = Committer(self.storage, self.catalog, self.clock, self.metrics, settings)
        self.digester = Digester(self.storage, LoopThreads())
        self.live = LiveUploads(self.storage, self.digester)
        self.ends = Ends(
            catalog=self.catalog,
            contents=self.storage,
            live=self.live,
            clock=self.clock,
            metrics=self.metrics,
            log=self.log.logger,
            tasks=self.tasks,
        )
        self.uploads = Uploads(
            catalog=self.catalog,
            staging=self.storage,
            committer=self.committer,
            digester=self.digester,
            admission=self.admission,
            live=self.live,
            ends=self.ends,
            clock=self.clock,
            entropy=CountingEntropy(),
            metrics=self.metrics,
            log=self.log.logger,
            tasks=self.tasks,
        )

    def set_policy(self, **changes: int) -> None:
        """Change the limits."""
        self.admission.policy = replace(self.admission.policy, **changes)

    async def answer(self, request: OpenRequest, stream: Stream) -> tuple[OpenResult, LiveUpload | None] | Refusal:
        """The answer to an OPEN."""
        return await self.uploads.open(request, stream)

    async def open(self, request: OpenRequest = REQUEST) -> tuple[LiveUpload, Stream]:
        """Open an upload, and return it with its stream."""
        stream = Stream()
        answer = await self.answer(request, stream)
        assert not isinstance(answer, Refusal), answer
        assert answer[1] is not None
        return answer[1], stream

    async def refusal(self, request: OpenRequest = REQUEST) -> ErrorCode:
        """The code with which an OPEN is refused."""
        answer = await self.answer(request, Stream())
        assert isinstance(answer, Refusal)
        assert answer.detail
        return answer.code

    def send(self, upload: LiveUpload, start: int, *pieces: bytes) -> CountedLease:
        """Let chunks arrive as one run of bytes, in memory of their own."""
        lease = CountedLease(b"".join(pieces))
        self.leases.append(lease)
        position, data = 0, []
        for piece in pieces:
            data.append(lease.view[position : position + len(piece)].toreadonly())
            position += len(piece)
        self.uploads.receive(upload, Run(start, tuple(data)), lease)
        return lease

    def assert_at_rest(self, *opened: LiveUpload) -> None:
        """Check that nothing but open uploads is kept in memory."""
        assert self.failures == []
        assert self.committer.pending_bytes == 0
        assert [lease.holders for lease in self.leases] == [0] * len(self.leases)
        assert self.storage.open_ids == {upload.id for upload in opened}
        assert [upload.id for upload in opened if not self.live.is_live(upload.id)] == []
        assert len(self.tasks) == 0


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    """Run cycles and digests during the block."""
    uploads = bench.uploads
    async with background(bench.committer.run(uploads), bench.digester.run(uploads.digested, uploads.unreadable)):
        yield bench
        await bench.tasks.cancel()
    await bench.digester.close()
    await bench.catalog.close()
