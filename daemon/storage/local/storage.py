"""Storage in a local directory: its parts, put together on one thread for writes, one for syncs and one for reads."""

from collections.abc import Callable
from pathlib import Path

from daemon.adapters.clock import Clock
from daemon.adapters.files import FileSystem
from daemon.adapters.threads import Lane, Threads
from daemon.storage.interface import Space
from daemon.storage.local.calls import Call, call, work_through
from daemon.storage.local.contents import LocalContents
from daemon.storage.local.inventory import LocalInventory
from daemon.storage.local.layout import Layout
from daemon.storage.local.reading import Readers
from daemon.storage.local.staging import LocalStaging


class LocalStorage:
    """Files below `root`. At most `open_files_max` stay open between writes.

    Without `is_durable` a sync waits its turn, and then leaves the rest to the operating system. `slower` gets the
    reason why syncs of many files take longer from now on: their file system's own sync has failed.
    """

    def __init__(
        self,
        root: Path,
        files: FileSystem,
        threads: Threads,
        clock: Clock,
        open_files_max: int,
        is_durable: bool = True,
        slower: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        """Make the directories that are missing. Raises OSError."""
        layout = Layout(root)
        layout.prepare(files)
        self._root = root
        self._files = files
        self.staging = LocalStaging(layout, files, threads, open_files_max, is_durable, slower)
        self._read_lane: Lane[Call] = threads.lane("storage-read", work_through)
        readers = Readers(files, self._read_lane, clock, lambda: self.staging.is_writing)
        self.contents = LocalContents(layout, files, readers, self.staging)
        self.inventory = LocalInventory(layout, files, self._read_lane, self.staging)

    async def space(self) -> Space:
        found = await call(self._read_lane, lambda: self._files.space(self._root))
        return Space(found.total_bytes, found.free_bytes)

    async def close(self) -> None:
        await self.staging.close()
        await self._read_lane.close()
