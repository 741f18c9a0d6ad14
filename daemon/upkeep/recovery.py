"""Checks after a start that storage has the acknowledged bytes. Reads the catalog, never the directory.

Only uploads under way are checked, so the time does not grow with the number of complete files.
"""

from dataclasses import dataclass, replace

from structlog.stdlib import BoundLogger

from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import UNDER_WAY, Upload
from daemon.storage.interface import Contents

BATCH_UPLOADS = 100
"""Read from the catalog at a time, which takes a millisecond: other requests come between two batches."""

NAMED_MAX = 100
"""Doubtful uploads that are named one by one. If a lost disk leaves a hundred thousand, their number is enough."""


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """How many uploads were checked, how many of them lack acknowledged bytes, and the ids of the first NAMED_MAX.

    `failed` says why the check ended early, None if it did not.
    """

    checked: int
    doubtful: int
    doubtful_ids: tuple[int, ...]
    failed: str | None = None


class Recovery:
    """Checks uploads while the daemon serves. An upload in doubt is kept and reported, never deleted."""

    def __init__(self, catalog: Catalog, contents: Contents, log: BoundLogger) -> None:
        self._catalog = catalog
        self._contents = contents
        self._log = log
        self.report = RecoveryReport(0, 0, ())

    async def run(self) -> RecoveryReport:
        """Check every upload under way, once."""
        last_id = 0
        try:
            while batch := await self._catalog.receiving(last_id, BATCH_UPLOADS):
                for upload in batch:
                    await self._check(upload)
                last_id = batch[-1].id
        except CatalogFailed as error:
            self.report = replace(self.report, failed=str(error))
            self._log.error("recovery failed", error=str(error), checked=self.report.checked)
            return self.report
        report = self.report
        self._log.info("recovery done", checked=report.checked, doubtful=report.doubtful)
        return report

    async def _check(self, upload: Upload) -> None:
        detail = await self._doubt(upload) if upload.ranges else None
        if detail is not None:
            # The upload may have ended since it was listed. Then its bytes are rightly gone.
            now = await self._catalog.get(upload.id)
            if now is None or now.state not in UNDER_WAY:
                detail = None
        self.report = replace(self.report, checked=self.report.checked + 1)
        if detail is not None:
            self._report(upload, detail)

    def _report(self, upload: Upload, detail: str) -> None:
        ids = self.report.doubtful_ids
        if len(ids) < NAMED_MAX:
            ids = (*ids, upload.id)
            self._log.warning(
                "acknowledged bytes missing", upload=f"{upload.id:016x}", device=upload.device, detail=detail
            )
        self.report = replace(self.report, doubtful=self.report.doubtful + 1, doubtful_ids=ids)

    async def _doubt(self, upload: Upload) -> str | None:
        """What is wrong with the upload's file, judged by its size. None if nothing is."""
        needed_bytes = upload.ranges[-1].end
        try:
            reading = await self._contents.open(upload.id)
            size = reading.size
            await reading.close()
        except OSError as error:
            return f"the file cannot be opened: {error.strerror or error}"
        if size < needed_bytes:
            return f"the file has {size} bytes, {needed_bytes} were acknowledged"
        return None
