"""The bytes of uploads, read from their files and deleted."""

from daemon.adapters.files import FileSystem
from daemon.storage.local.layout import Layout
from daemon.storage.local.reading import FileReading, Readers
from daemon.storage.local.staging import LocalStaging


class LocalContents:
    """Opens and deletes the files of uploads."""

    def __init__(self, layout: Layout, files: FileSystem, readers: Readers, staging: LocalStaging) -> None:
        self._layout = layout
        self._files = files
        self._readers = readers
        self._staging = staging

    async def open(self, upload_id: int) -> FileReading:
        return await self._readers.open(self._layout.path(upload_id))

    def path(self, upload_id: int) -> str:
        return self._layout.relative(upload_id)

    async def remove(self, upload_id: int) -> int:
        self._staging.release(upload_id)
        path = self._layout.path(upload_id)
        return await self._staging.after_writes(lambda: self._files.remove(path))
