"""How an upload ends: aborted by its device, rejected, or deleted and expired from outside. PROTOCOL.md §10."""

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import UNDER_WAY, End, State, Upload
from daemon.ingest.failures import catalog_failure
from daemon.ingest.live_upload import TAKEN_OVER, Listener, LiveUpload
from daemon.ingest.live_uploads import LiveUploads
from daemon.storage.interface import Contents
from daemon.tasks import Tasks
from daemon.telemetry.metrics import Metrics, StorageFailure
from protocol.constants import UploadState
from protocol.errors import ErrorCode

_STANDING = UNDER_WAY | {State.COMPLETE}


class Ends:
    """Ends uploads in the catalog, then tells their streams, then removes their bytes."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        contents: Contents,
        live: LiveUploads,
        clock: Clock,
        metrics: Metrics,
        log: BoundLogger,
        tasks: Tasks,
    ) -> None:
        self._catalog = catalog
        self._contents = contents
        self._live = live
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._tasks = tasks

    async def end(self, upload_id: int, state: State) -> Upload | None:
        """Delete or expire; None if the upload's state does not allow it. Raises CatalogFailed."""
        ended = await self._catalog.end(upload_id, state, self._clock.wall_ms())
        if ended is not None:
            self._metrics.ended[UploadState[state.name]] += 1
            upload = self._live.get(upload_id)
            if upload is not None:
                code = ErrorCode.GONE if state is State.DELETED else ErrorCode.EXPIRED
                self._live.fail(upload, code, f"the upload is {state.value}")
        return ended

    async def abort(self, upload: LiveUpload) -> None:
        """The device gives the upload up. Raises CatalogFailed."""
        listener = self._live.forget(upload)
        if not await self._end_own(upload, listener, State.ABORTED, "by the device"):
            return
        await self.remove_bytes(upload.id)
        if listener is not None:
            listener.aborted(upload.id)

    def reject(self, upload: LiveUpload, found: str) -> None:
        """The bytes do not match a digest; they are kept for inspection. `found` is the digest that they have."""
        # Forgotten at once: a cycle that is about to be recorded must not complete it.
        self._tasks.spawn(self._record_rejection(upload, self._live.forget(upload), found))

    async def remove_bytes(self, upload_id: int) -> None:
        """Delete the bytes of an upload that has ended. A failure is logged and counted."""
        try:
            await self._contents.remove(upload_id)
        except OSError as error:
            # The row is gone already, so cleanup finds the bytes as orphans and reports them.
            self._metrics.storage_failures[StorageFailure.DELETE] += 1
            self._log.warning("bytes not deleted", upload=f"{upload_id:016x}", error=str(error))

    def clear_away(self, end: End, device: str) -> None:
        """Note an upload that the catalog ended along with another change, and remove its bytes."""
        self.note(end.upload_id, device, end.state, end.reason.value)
        self._tasks.spawn(self.remove_bytes(end.upload_id))

    def note(self, upload_id: int, device: str, state: State, detail: str) -> None:
        """Count and log an end."""
        self._metrics.ended[UploadState[state.name]] += 1
        self._log.info("upload ended", upload=f"{upload_id:016x}", device=device, state=state.value, detail=detail)

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
        """Whether the upload has ended. If it is complete or another stream's by now, the listener hears that."""
        if await self._catalog.end(upload.id, state, self._clock.wall_ms(), upload.epoch) is not None:
            self.note(upload.id, upload.device, state, detail)
            return True
        record = await self._catalog.get(upload.id)
        if record is None or record.state not in _STANDING:
            return True
        if listener is not None and record.state is State.COMPLETE:
            listener.finished(record)
        elif listener is not None:
            listener.failed(ErrorCode.FENCED, TAKEN_OVER)
        return False
