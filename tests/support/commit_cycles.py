"""A committer with uploads that the test feeds directly, and a listener that records its reports."""

import asyncio
import errno
from dataclasses import replace

from daemon.catalog.records import Completed, Completion
from daemon.ingest.committer import Committer
from daemon.ingest.live_upload import Cut, LiveUpload
from protocol.errors import ErrorCode
from tests.support.catalog_samples import REQUEST
from tests.support.upload_bench import NEVER_S, Bench

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


class RecordedCommits:
    """Records all reports. Uploads whose ids are in `finishing` are completed once all bytes are there."""

    def __init__(self) -> None:
        self.finishing: set[int] = set()
        self.reports: list[tuple[str, int]] = []
        self.cuts: list[Cut] = []
        self.losses: list[tuple[int, ErrorCode, str]] = []
        self.changed = asyncio.Event()

    def completion(self, cut: Cut) -> Completion | None:
        upload = cut.upload
        if upload.id not in self.finishing:
            return None
        return Completion(upload.id, cut.epoch, upload.received.total_bytes, 0, None, cut.ranges, 2_000)

    def progressed(self, cut: Cut) -> None:
        self.reports.append(("progressed", cut.upload.id))
        self.changed.set()
        self.cuts.append(cut)

    def completed(self, cut: Cut, completed: Completed) -> None:
        assert completed.upload.id == cut.upload.id
        self.reports.append(("completed", cut.upload.id))

    def lost(self, upload: LiveUpload, code: ErrorCode, detail: str) -> None:
        if not upload.is_over:
            upload.is_over = True
            self.reports.append(("lost", upload.id))
            self.losses.append((upload.id, code, detail))


async def waited(listener: RecordedCommits, count: int) -> None:
    """Wait until `count` cuts were reported."""
    while len(listener.reports) < count:
        await listener.changed.wait()
        listener.changed.clear()


class Cycles:
    """A committer with uploads that the test feeds directly."""

    def __init__(self, cycle_bytes: int = 1, cycle_s: float = NEVER_S) -> None:
        self.bench = Bench(cycle_bytes=cycle_bytes, cycle_s=cycle_s)
        self.storage = self.bench.storage
        self.catalog = self.bench.catalog
        self.metrics = self.bench.metrics
        self.clock = self.bench.clock
        self.committer: Committer = self.bench.committer
        self.listener = RecordedCommits()

    async def open(self, name: str = "file", device: str = REQUEST.device) -> LiveUpload:
        upload_id = 1 + self.catalog.gates["open"].asked
        result = await self.catalog.open(replace(REQUEST, upload_id=upload_id, device=device, name=name))
        assert result.upload is not None
        return LiveUpload(result.upload)

    def arrive(self, upload: LiveUpload, count: int) -> None:
        """Let the next `count` bytes of an upload arrive."""
        start = upload.received.highest_byte
        pieces = upload.take_in(start, [bytes(count)], upload.received.missing(start, start + count))
        for piece in pieces:
            self.storage.write(upload.id, piece.offset, piece.data, upload.next_expected_byte, lambda _: None)
        self.committer.arrived(upload, count)

    async def recorded(self, upload: LiveUpload) -> int:
        found = await self.catalog.get(upload.id)
        assert found is not None
        return found.next_expected_byte
