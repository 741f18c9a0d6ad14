"""Uploads from OPEN to their end: resume, takeover, reception, finish, abort, deletion. PROTOCOL.md §6 to §10."""

from dataclasses import replace
from functools import partial

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.adapters.entropy import Entropy
from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import Completed, Completion, OpenRequest, OpenResult, Outcome, State, Upload
from daemon.ingest.admission import Admission, Refusal, refusal_of
from daemon.ingest.committer import Committer
from daemon.ingest.digester import Digester
from daemon.ingest.failures import catalog_failure, failure_kind, storage_failure
from daemon.ingest.live_upload import Cut, Listener, LiveUpload, Piece
from daemon.ingest.received import Lease, Received
from daemon.storage.interface import Contents, Staging
from daemon.tasks import Tasks
from daemon.telemetry.metrics import Metrics, OpenOutcome, StorageFailure
from protocol.constants import OFFSET_MAX, UploadState
from protocol.errors import ErrorCode, ErrorScope
from protocol.ranges import Span

_STANDING = frozenset({State.RECEIVING, State.PARTIAL, State.COMPLETE})
_TAKEN_OVER = "a later OPEN of the same name has taken the upload over"

VERIFYING_FROM_S = 0.5
"""A digest that takes longer is announced, so that the device does not take the silence for a dead link."""


class Uploads:
    """All uploads that are being received."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        staging: Staging,
        contents: Contents,
        committer: Committer,
        digester: Digester,
        admission: Admission,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
        log: BoundLogger,
        tasks: Tasks,
    ) -> None:
        self._catalog = catalog
        self._staging = staging
        self._contents = contents
        self._committer = committer
        self._digester = digester
        self._admission = admission
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._log = log
        self._tasks = tasks
        self._live: dict[int, LiveUpload] = {}

    def is_live(self, upload_id: int) -> bool:
        """Whether a connection has the upload open, or bytes of it are on their way to the disk."""
        return upload_id in self._live

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
                tombstone_after_ms=now_ms - int(policy.tombstone_s * 1000),
            )
        )
        if result.replaced_id is not None:
            self._drop(result.replaced_id, ErrorCode.FENCED, "the upload was replaced by a later OPEN of the same name")
            self._tasks.spawn(self.remove_bytes(result.replaced_id))
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

    async def _attach(self, record: Upload, listener: Listener) -> LiveUpload:
        upload = self._live.get(record.id)
        if upload is None:
            upload = self._live[record.id] = LiveUpload(record)
        else:
            earlier, upload.listener = upload.listener, None
            if earlier is not None:
                self._metrics.takeovers += 1
                earlier.failed(ErrorCode.FENCED, _TAKEN_OVER)
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

    def receive(self, upload: LiveUpload, received: Received, lease: Lease | None) -> None:
        """Take bytes of an attached upload; its listener gets the result.

        The bytes are valid until `lease` is released, which is done here; without one they stay valid.
        """
        start, end = received.start, received.end
        gaps = upload.received.missing(start, end)
        needed = sum(gap.end - gap.start for gap in gaps)
        if needed < end - start:
            self._metrics.duplicate_bytes += end - start - needed
        if upload.is_over or not gaps or self._refuse(upload, start, end, needed):
            if lease is not None:
                lease.release()
            if not gaps:
                self._again(upload, start, end)
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
        self._committer.arrived(upload, end - start)

    def finish(self, upload: LiveUpload, size: int, crc32c: int | None = None, sha256: bytes | None = None) -> None:
        """All `size` bytes were sent: complete the upload once they are durable and match the digests, where given."""
        listener = upload.listener
        if listener is None:
            return
        if size < upload.received.highest_byte:
            detail = f"FINISH says {size} bytes, {upload.received.highest_byte} have arrived"
            self._end_stream(upload, ErrorCode.SIZE_INVALID, detail)
            return
        if refusal := self._admission.refuse_size(size):
            self._end_stream(upload, refusal.code, refusal.detail)
            return
        upload.size = size
        if not upload.is_whole:
            missing = upload.received.missing(0, size)[0]
            listener.refused(missing, ErrorCode.INCOMPLETE, 0)
            return
        crc = upload.received.prefix_crc32c()
        given = {each for each in (upload.crc32c_expected, crc32c) if each is not None}
        if given - {crc} or _differ(upload.sha256_expected, sha256):
            self._reject(upload, f"CRC32C is {crc:08x}")
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
        listener = self._forget(upload)
        if not await self._end_own(upload, listener, State.ABORTED, "by the device"):
            return
        await self.remove_bytes(upload.id)
        if listener is not None:
            listener.aborted(upload.id)

    async def end(self, upload_id: int, state: State) -> Upload | None:
        """Delete, expire or keep as partial; None if the upload's state does not allow it. Raises CatalogFailed."""
        ended = await self._catalog.end(upload_id, state, self._clock.wall_ms())
        if ended is not None:
            if state is not State.PARTIAL:
                self._metrics.ended[UploadState[state.name]] += 1
            code = ErrorCode.GONE if state is State.DELETED else ErrorCode.EXPIRED
            self._drop(upload_id, code, f"the upload is {state.value}")
        return ended

    async def remove_bytes(self, upload_id: int) -> None:
        """Delete the bytes of an upload that has ended; what cannot be deleted is reported."""
        try:
            await self._contents.remove(upload_id)
        except OSError as error:
            # The row is gone already, so cleanup will find the bytes as orphans and report them.
            self._metrics.storage_failures[StorageFailure.DELETE] += 1
            self._log.warning("bytes not deleted", upload=f"{upload_id:016x}", error=str(error))

    def detach(self, upload: LiveUpload, listener: Listener) -> None:
        """The stream is gone; what it brought still becomes durable."""
        if upload.listener is listener:
            upload.listener = None
            upload.is_finishing = False
            self._rest(upload)

    # What the committer and the digester report.

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
            upload.listener.acknowledged(upload.next_expected_byte, upload.beyond(), cut.settled_bytes)
        if upload.sha256_expected is not None and upload.sha256 is None:
            self._digester.follow(upload)
        self._rest(upload)

    def completed(self, cut: Cut, completed: Completed) -> None:
        upload = cut.upload
        listener = self._forget(upload)
        self._note_end(upload, State.COMPLETE, f"{completed.upload.size} bytes")
        if completed.superseded_id is not None:
            self._tasks.spawn(self.remove_bytes(completed.superseded_id))
        if listener is not None:
            listener.finished(completed.upload)

    def lost(self, upload: LiveUpload, code: ErrorCode, detail: str) -> None:
        if upload.is_over:
            return
        self._log.warning(
            "upload lost", upload=f"{upload.id:016x}", device=upload.device, code=code.name, detail=detail
        )
        listener = self._forget(upload)
        if listener is not None:
            listener.failed(code, detail)

    def digested(self, upload: LiveUpload, digest: bytes) -> None:
        """This is the SHA-256 of the whole upload."""
        if upload.is_over:
            return
        if upload.sha256_expected not in (None, digest):
            self._reject(upload, f"SHA-256 is {digest.hex()}")
            return
        upload.sha256 = digest
        self._committer.touch(upload, urgent=True)

    def unreadable(self, upload: LiveUpload, error: OSError) -> None:
        """The digest could not be computed."""
        self._metrics.storage_failures[StorageFailure.READ] += 1
        self.lost(upload, *storage_failure(error))

    # Within.

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

    def _refuse(self, upload: LiveUpload, start: int, end: int, needed: int) -> bool:
        """Whether bytes that are not there yet cannot be taken; the listener is told why."""
        refusal = self._admission.take(upload, start, end, needed)
        if refusal is None:
            return False
        if refusal.code.scope is not ErrorScope.CHUNK:
            self._end_stream(upload, refusal.code, refusal.detail)
        elif upload.listener is not None:
            upload.listener.refused(Span(start, end), refusal.code, end - start)
        return True

    def _again(self, upload: LiveUpload, start: int, end: int) -> None:
        """A wholly duplicate chunk is acknowledged again, now or with the cycle that makes its first copy durable."""
        if not upload.is_durable(start, end):
            self._committer.arrived(upload, end - start)
        elif upload.listener is not None:
            upload.listener.acknowledged(upload.next_expected_byte, upload.beyond(), end - start)

    def _new_id(self) -> int:
        return int.from_bytes(self._entropy.bytes(8), "big") % OFFSET_MAX + 1

    def _end_stream(self, upload: LiveUpload, code: ErrorCode, detail: str) -> None:
        """The stream is over, the upload can be resumed."""
        listener, upload.listener = upload.listener, None
        self._rest(upload)
        if listener is not None:
            listener.failed(code, detail)

    def _rest(self, upload: LiveUpload) -> None:
        """Nobody sends and everything is durable: the catalog knows all there is to know."""
        if upload.listener is None and upload.received.snapshot() == upload.durable:
            self._forget(upload)

    def _forget(self, upload: LiveUpload) -> Listener | None:
        upload.is_over = True
        if self._live.get(upload.id) is upload:
            del self._live[upload.id]
            self._staging.release(upload.id)
            self._digester.forget(upload)
        listener, upload.listener = upload.listener, None
        return listener

    def _drop(self, upload_id: int, code: ErrorCode, detail: str) -> None:
        upload = self._live.get(upload_id)
        listener = None if upload is None else self._forget(upload)
        if listener is not None:
            listener.failed(code, detail)

    def _reject(self, upload: LiveUpload, found: str) -> None:
        # Forgotten at once: a cycle that is about to be recorded must not complete it.
        self._tasks.spawn(self._record_rejection(upload, self._forget(upload), found))

    async def _record_rejection(self, upload: LiveUpload, listener: Listener | None, found: str) -> None:
        detail = f"the bytes do not have the digest that was given: {found}"
        try:
            if not await self._end_own(upload, listener, State.REJECTED, detail):
                return
            code = ErrorCode.DIGEST_MISMATCH
        except CatalogFailed as error:
            self._log.warning("rejection not recorded", upload=f"{upload.id:016x}", error=str(error))
            code, detail = catalog_failure(error)
        if listener is not None:
            listener.failed(code, detail)

    async def _end_own(self, upload: LiveUpload, listener: Listener | None, state: State, detail: str) -> bool:
        """Whether the upload has ended; if it is complete or another stream's by now, the listener is told that."""
        if await self._catalog.end(upload.id, state, self._clock.wall_ms(), upload.epoch) is not None:
            self._note_end(upload, state, detail)
            return True
        record = await self._catalog.get(upload.id)
        if record is None or record.state not in _STANDING:
            return True
        if listener is not None and record.state is State.COMPLETE:
            listener.finished(record)
        elif listener is not None:
            listener.failed(ErrorCode.FENCED, _TAKEN_OVER)
        return False

    def _note_end(self, upload: LiveUpload, state: State, detail: str) -> None:
        self._metrics.ended[UploadState[state.name]] += 1
        self._log.info(
            "upload ended", upload=f"{upload.id:016x}", device=upload.device, state=state.value, detail=detail
        )


def _differ(one: bytes | None, other: bytes | None) -> bool:
    return one is not None and other is not None and one != other
