"""Uploads from OPEN to completion: resume, takeover, reception, finish. PROTOCOL.md §6 to §9."""

from dataclasses import replace
from functools import partial

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.adapters.entropy import Entropy
from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import Completed, Completion, End, OpenRequest, OpenResult, Outcome, State, Upload
from daemon.ingest.admission import Admission, Refusal, refusal_of
from daemon.ingest.committer import Committer
from daemon.ingest.digester import Digester
from daemon.ingest.ends import Ends
from daemon.ingest.failures import failure_kind, storage_failure
from daemon.ingest.live_upload import TAKEN_OVER, Cut, Listener, LiveUpload, Piece
from daemon.ingest.live_uploads import LiveUploads
from daemon.ingest.received import Lease, Received
from daemon.storage.interface import Staging
from daemon.tasks import Tasks
from daemon.telemetry.metrics import Metrics, OpenOutcome, StorageFailure
from protocol.constants import OFFSET_MAX
from protocol.errors import ErrorCode, ErrorScope
from protocol.ranges import Span

VERIFYING_FROM_S = 0.5
"""A digest that takes longer is announced, so that the device does not take the silence for a dead link."""


class Uploads:
    """Opens uploads for streams, takes their bytes, and decides what follows from the committer's reports."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        staging: Staging,
        committer: Committer,
        digester: Digester,
        admission: Admission,
        live: LiveUploads,
        ends: Ends,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
        log: BoundLogger,
        tasks: Tasks,
    ) -> None:
        self._catalog = catalog
        self._staging = staging
        self._committer = committer
        self._digester = digester
        self._admission = admission
        self._live = live
        self._ends = ends
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._log = log
        self._tasks = tasks

    async def open(self, request: OpenRequest, listener: Listener) -> tuple[OpenResult, LiveUpload | None] | Refusal:
        """Open an upload for a stream, which fences its earlier one. Raises CatalogFailed.

        `request.upload_id`, quota and times are filled in here. No LiveUpload comes with a complete upload.
        """
        policy = self._admission.policy
        if refusal := await self._admission.refuse_open(request):
            self._metrics.opens[OpenOutcome.REFUSED] += 1
            return refusal
        now_ms = self._clock.wall_ms()
        result = await self._catalog.open(
            replace(
                request,
                upload_id=self._new_id(),
                now_ms=now_ms,
                quota_bytes=policy.quota_bytes_per_device,
                uploads_max=policy.uploads_max_per_device,
                tombstone_after_ms=now_ms - int(policy.tombstone_s * 1000),
            )
        )
        if result.outcome is Outcome.CREATED:
            self._admission.began(request)
        if result.replaced is not None:
            self._replaced(result.replaced, request.device)
        if refusal := refusal_of(result):
            self._metrics.opens[OpenOutcome.REFUSED] += 1
            return refusal
        self._metrics.opens[OpenOutcome(result.outcome.value)] += 1
        if result.upload is None:
            raise ValueError(f"the catalog answered {result.outcome} without an upload")
        if result.outcome is Outcome.COMPLETE:
            return result, None
        self._metrics.resumes += result.upload.next_expected_byte > 0
        return result, await self._attach(result.upload, listener)

    def receive(self, upload: LiveUpload, received: Received, lease: Lease | None) -> None:
        """Take bytes of an attached upload; its listener gets the result.

        The bytes are valid until `lease` is released, which is done here; without one they stay valid.
        """
        start, end = received.start, received.end
        gaps = upload.received.missing(start, end)
        needed = sum(gap.end - gap.start for gap in gaps)
        if needed < end - start:
            self._metrics.duplicate_bytes += end - start - needed
        if upload.is_over or not gaps or self._refuse(upload, received, needed):
            if lease is not None:
                lease.release()
            if not gaps:
                self._acknowledge_duplicate(upload, received)
            return
        durable_bytes = upload.durable[-1].end if upload.durable else 0
        pieces = upload.take_in(start, received.data, gaps, received.crc32c)
        for index, piece in enumerate(pieces):
            if lease is not None and index:
                lease.retain()
            self._staging.write(
                upload.id, piece.offset, piece.data, durable_bytes, partial(self._written, upload, lease)
            )
            if upload.sha256_wanted:
                self._digest(upload, piece, lease)
        self._committer.arrived(upload, received.charged_bytes)

    def finish(self, upload: LiveUpload, size: int, crc32c: int | None = None, sha256: bytes | None = None) -> None:
        """All `size` bytes were sent: complete the upload once they are durable and match the digests, where given."""
        listener = upload.listener
        if listener is None:
            return
        if size < upload.received.highest_byte:
            detail = f"FINISH says {size} bytes, {upload.received.highest_byte} have arrived"
            self._live.end_stream(upload, ErrorCode.SIZE_INVALID, detail)
            return
        if refusal := self._admission.refuse_size(size):
            self._live.end_stream(upload, refusal.code, refusal.detail)
            return
        upload.size = size
        if not upload.is_whole:
            missing = upload.received.missing(0, size)[0]
            listener.refused(missing, ErrorCode.INCOMPLETE, 0)
            return
        crc = upload.received.prefix_crc32c()
        given = {each for each in (upload.crc32c_expected, crc32c) if each is not None}
        if given - {crc} or _differ(upload.sha256_expected, sha256):
            self._ends.reject(upload, f"CRC32C is {crc:08x}")
            return
        upload.is_finishing = True
        if sha256 is not None:
            upload.sha256_expected = sha256
        if upload.sha256_expected is not None and upload.sha256 is None:
            self._digester.follow(upload)
            remaining_s = self._digester.remaining_s(upload)
            if remaining_s > VERIFYING_FROM_S:
                listener.verifying(int(remaining_s * 1000))
        self._committer.touch(upload, urgent=True)

    async def abort(self, upload: LiveUpload) -> None:
        """The device gives the upload up. Raises CatalogFailed."""
        await self._ends.abort(upload)

    def detach(self, upload: LiveUpload, listener: Listener) -> None:
        """The stream is gone. What it brought still becomes durable."""
        if upload.listener is listener:
            upload.listener = None
            upload.is_finishing = False
            self._live.forget_if_done(upload)

    # The committer's and the digester's reports.

    def completion(self, cut: Cut) -> Completion | None:
        upload = cut.upload
        if not upload.is_finishing or upload.size is None or upload.epoch != cut.epoch:
            return None
        if sum(each.end - each.start for each in cut.ranges) != upload.size or len(cut.ranges) > 1:
            return None
        if upload.sha256_expected is not None and upload.sha256 is None:
            return None
        crc = cut.ranges[0].crc32c if cut.ranges else 0
        return Completion(upload.id, cut.epoch, upload.size, crc, upload.sha256, cut.ranges, self._clock.wall_ms())

    def progressed(self, cut: Cut) -> None:
        upload = cut.upload
        if upload.is_over:
            return
        if upload.listener is not None and upload.epoch == cut.epoch:
            # Duplicates of what this cut holds may have come after it was made.
            answered_bytes = cut.answered_bytes + upload.duplicate_bytes
            upload.duplicate_bytes = 0
            upload.listener.acknowledged(upload.next_expected_byte, upload.beyond(), answered_bytes)
        if upload.sha256_expected is not None and upload.sha256 is None:
            self._digester.follow(upload)
        self._live.forget_if_done(upload)

    def completed(self, cut: Cut, completed: Completed) -> None:
        upload = cut.upload
        listener = self._live.forget(upload)
        self._ends.note(upload.id, upload.device, State.COMPLETE, f"{completed.upload.size} bytes")
        if completed.superseded is not None:
            self._ends.clear_away(completed.superseded, upload.device)
        if listener is not None:
            listener.finished(completed.upload)

    def lost(self, upload: LiveUpload, code: ErrorCode, detail: str) -> None:
        if upload.is_over:
            return
        self._log.warning(
            "upload lost", upload=f"{upload.id:016x}", device=upload.device, code=code.name, detail=detail
        )
        self._live.fail(upload, code, detail)

    def digested(self, upload: LiveUpload, digest: bytes) -> None:
        """`digest` is the SHA-256 of the whole upload."""
        if upload.is_over:
            return
        if upload.sha256_expected not in (None, digest):
            self._ends.reject(upload, f"SHA-256 is {digest.hex()}")
            return
        upload.sha256 = digest
        self._committer.touch(upload, urgent=True)

    def unreadable(self, upload: LiveUpload, error: OSError) -> None:
        """The digest could not be computed."""
        self._metrics.storage_failures[StorageFailure.READ] += 1
        self.lost(upload, *storage_failure(error))

    # Within.

    async def _attach(self, record: Upload, listener: Listener) -> LiveUpload:
        upload = self._live.get(record.id)
        if upload is None:
            upload = LiveUpload(record)
            self._live.add(upload)
        else:
            earlier, upload.listener = upload.listener, None
            if earlier is not None:
                self._metrics.takeovers += 1
                earlier.failed(ErrorCode.FENCED, TAKEN_OVER)
            upload.take_over(record)
        upload.listener = listener
        if upload.sha256_wanted:
            self._digester.follow(upload)
        try:
            await self._admission.allow(upload, self._live.values())
        except CatalogFailed:
            self.detach(upload, listener)
            raise
        return upload

    def _replaced(self, end: End, device: str) -> None:
        upload = self._live.get(end.upload_id)
        if upload is not None:
            self._live.fail(upload, ErrorCode.FENCED, "the upload was replaced by a later OPEN of the same name")
        self._ends.clear_away(end, device)

    def _digest(self, upload: LiveUpload, piece: Piece, lease: Lease | None) -> None:
        if lease is None:
            self._digester.take(upload, piece, lambda: None)
        elif self._digester.take(upload, piece, lease.release):
            lease.retain()

    def _written(self, upload: LiveUpload, lease: Lease | None, error: OSError | None) -> None:
        if lease is not None:
            lease.release()
        if error is not None and not upload.is_over:
            self._metrics.storage_failures[failure_kind(error, StorageFailure.WRITE)] += 1
            self.lost(upload, *storage_failure(error))

    def _refuse(self, upload: LiveUpload, received: Received, needed: int) -> bool:
        """Whether bytes that are not there yet cannot be taken. If so, the listener gets the reason."""
        refusal = self._admission.take(upload, received.start, received.end, needed)
        if refusal is None:
            return False
        if refusal.code.scope is not ErrorScope.CHUNK:
            self._live.end_stream(upload, refusal.code, refusal.detail)
        elif upload.listener is not None:
            refused = Span(received.start, received.end)
            upload.listener.refused(refused, refusal.code, received.charged_bytes)
        return True

    def _acknowledge_duplicate(self, upload: LiveUpload, received: Received) -> None:
        """Acknowledge a chunk that was there already: now, or no later than its first copy."""
        if not upload.is_durable(received.start, received.end):
            upload.duplicate_bytes += received.charged_bytes
            self._committer.touch(upload)
        elif upload.listener is not None:
            upload.listener.acknowledged(upload.next_expected_byte, upload.beyond(), received.charged_bytes)

    def _new_id(self) -> int:
        return int.from_bytes(self._entropy.bytes(8), "big") % OFFSET_MAX + 1


def _differ(one: bytes | None, other: bytes | None) -> bool:
    return one is not None and other is not None and one != other
