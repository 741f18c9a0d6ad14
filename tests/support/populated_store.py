"""A real catalog and real files, with uploads of any age and state in them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from daemon.adapters.clock import SystemClock
from daemon.adapters.files import SystemFiles
from daemon.adapters.threads import SystemThreads
from daemon.catalog.records import Progress, State, Upload
from daemon.catalog.sqlite.catalog import SqliteCatalog, open_catalog
from daemon.storage.local.storage import LocalStorage
from tests.support.catalog_samples import REQUEST, completion, first_bytes

CONTENT = b"0123456789"


@dataclass(frozen=True, slots=True)
class Keeping:
    """Catalog and storage on one directory."""

    root: Path
    catalog: SqliteCatalog
    storage: LocalStorage

    def path(self, upload_id: int) -> Path:
        """Where storage keeps the upload's bytes."""
        return self.root / "files" / f"{upload_id % 256:02x}" / f"{upload_id:016x}"

    async def add(
        self, upload_id: int, at_ms: int, state: State = State.RECEIVING, content: bytes | None = CONTENT
    ) -> Upload:
        """An upload that has been in `state` since `at_ms`, all of `content` being durable; None: no file."""
        size = len(CONTENT) if content is None else len(content)
        request = replace(REQUEST, upload_id=upload_id, name=f"file-{upload_id}", now_ms=at_ms, size=size)
        await self.catalog.open(request)
        if size:
            await self.catalog.commit([Progress(upload_id, 1, first_bytes(size), at_ms)])
        if content:
            self.path(upload_id).write_bytes(content)
        if state is State.COMPLETE:
            await self.catalog.complete(completion(upload_id, size=size, now_ms=at_ms))
        elif state is State.PARTIAL:
            await self.catalog.park(upload_id, at_ms)
        elif state is not State.RECEIVING:
            await self.catalog.end(upload_id, state, at_ms)
        return await self.get(upload_id)

    async def get(self, upload_id: int) -> Upload:
        """The upload, which must be known."""
        found = await self.catalog.get(upload_id)
        assert found is not None
        return found

    async def states(self) -> dict[int, State]:
        """The state of each upload, for ids below 100."""
        found = [await self.catalog.get(upload_id) for upload_id in range(1, 100)]
        return {upload.id: upload.state for upload in found if upload is not None}


@asynccontextmanager
async def keep(root: Path) -> AsyncIterator[Keeping]:
    """Open both, and close them."""
    catalog = await open_catalog(root / "catalog.sqlite", SystemThreads())
    storage = LocalStorage(root, SystemFiles(), SystemThreads(), SystemClock(), open_files_max=16)
    try:
        yield Keeping(root, catalog, storage)
    finally:
        await storage.close()
        await catalog.close()
