"""Uploads under way, written to their files and made durable.

Writes go through one lane and syncs through another, so that receiving goes on while the disk makes earlier bytes
durable. A sync waits its turn behind the writes that it must cover.
"""

import contextlib
import errno
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from daemon.adapters.files import FileSystem
from daemon.adapters.threads import Lane, Report, Threads
from daemon.storage.local.calls import Call, Result, call, run_all
from daemon.storage.local.disk_writer import DiskWriter, StagedFile
from daemon.storage.local.layout import Layout
from protocol.checksum import Buffer

JOINED_BYTES_MAX = 1024 * 1024
"""Writes are joined up to this size. Beyond it one call costs as much as two, and memory would come back later."""


@dataclass(slots=True, eq=False)
class _Write:
    """One or more writes to a file that continue each other. `done` has a function for each of them."""

    file: StagedFile
    offset: int
    end: int
    pieces: list[Buffer]
    done: list[Callable[[OSError | None], None]]

    def takes(self, later: "_Write") -> bool:
        """Whether `later` continues this write and both together are small."""
        return later.offset == self.end and later.end - self.offset <= JOINED_BYTES_MAX

    def join(self, later: "_Write") -> None:
        self.end = later.end
        self.pieces += later.pieces
        self.done += later.done


@dataclass(frozen=True, slots=True)
class _Sync:
    files: dict[int, StagedFile]
    done: Callable[[dict[int, OSError]], None]


@dataclass(frozen=True, slots=True)
class _CloseFile:
    file: StagedFile


class LocalStaging:
    """Writes files of which at most `open_files_max` stay open.

    Files at rest are closed to make room for others. When that many files were written and not yet synced, a write to
    one more opens and closes its file. `slower`, `is_durable`: see LocalStorage.
    """

    def __init__(
        self,
        layout: Layout,
        files: FileSystem,
        threads: Threads,
        open_files_max: int,
        is_durable: bool,
        slower: Callable[[OSError], None],
    ) -> None:
        self._slower = slower
        self._layout = layout
        self._files = files
        self._open_files_max = open_files_max
        self._staged: dict[int, StagedFile] = {}
        self._idle: OrderedDict[int, StagedFile] = OrderedDict()
        self._open_files = 0
        self._writes = 0
        self._disk = DiskWriter(files, layout.root, layout.shards, is_durable)
        self._sync_lane: Lane[_Sync] = threads.lane("storage-sync", self._sync_batch)
        self._write_lane: Lane[_Write | _Sync | _CloseFile | Call] = threads.lane("storage-write", self._write_batch)

    @property
    def is_writing(self) -> bool:
        """Some bytes were not written yet."""
        return self._writes > 0

    def write(
        self,
        upload_id: int,
        offset: int,
        pieces: Sequence[Buffer],
        durable_bytes: int,
        done: Callable[[OSError | None], None],
    ) -> None:
        file = self._staged.get(upload_id)
        if file is None:
            file = self._staged[upload_id] = StagedFile(upload_id, self._layout.path(upload_id), durable_bytes)
            self._close_idle()
        self._use(file)
        file.is_unsynced = True
        self._writes += 1
        end = offset + sum(map(len, pieces))
        self._write_lane.put(_Write(file, offset, end, [*pieces], [done]))

    def sync(self, upload_ids: Sequence[int], done: Callable[[dict[int, OSError]], None]) -> None:
        files = {}
        for upload_id in upload_ids:
            file = self._staged.get(upload_id)
            if file is not None:
                self._use(file)
                file.is_unsynced = False
                files[upload_id] = file
        self._write_lane.put(_Sync(files, done))

    def release(self, upload_id: int) -> None:
        file = self._staged.pop(upload_id, None)
        self._idle.pop(upload_id, None)
        if file is not None:
            file.is_released = True
            if not file.users:
                self._write_lane.put(_CloseFile(file))

    async def after_writes(self, run: Callable[[], Result]) -> Result:
        """Run file calls after the writes queued before. Raises what they raise."""
        return await call(self._write_lane, run)

    async def close(self) -> None:
        """Finish what is queued and close everything."""
        for upload_id in list(self._staged):
            self.release(upload_id)
        # First the writes, then the syncs behind them, and last the closing of the files that these had in use.
        await call(self._write_lane, lambda: None)
        await self._sync_lane.close()
        self._disk.close()
        await self._write_lane.close()

    def _use(self, file: StagedFile) -> None:
        file.users += 1
        self._idle.pop(file.upload_id, None)

    def _leave(self, file: StagedFile) -> None:
        file.users -= 1
        if file.users:
            return
        if file.is_released:
            self._write_lane.put(_CloseFile(file))
        elif not file.is_unsynced:
            self._idle[file.upload_id] = file
            self._close_idle()

    def _close_idle(self) -> None:
        while self._idle and len(self._staged) > self._open_files_max:
            self.release(next(iter(self._idle)))

    # On the write lane.

    def _write_batch(self, batch: list[_Write | _Sync | _CloseFile | Call]) -> Report:
        reports: list[Report] = []
        for item in _joined(batch):
            match item:
                case _Write():
                    reports.append(self._write_one(item))
                case _Sync():
                    self._sync_lane.put(item)
                case _CloseFile(file):
                    self._close_one(file)
                case _:
                    item.work()
                    reports.append(item.report)
        return lambda: run_all(reports)

    def _write_one(self, write: _Write) -> Report:
        file = write.file
        error: OSError | None = None
        try:
            if file.fd < 0 and self._open_files >= self._open_files_max:
                self._write_apart(write)
            else:
                if file.fd < 0:
                    self._open_one(file)
                self._disk.write(file, write.pieces, write.offset)
        except OSError as failure:
            # The sync behind this write may be reported first, so it must know too.
            error = file.error = failure

        def report() -> None:
            self._writes -= len(write.done)
            for done in write.done:
                self._leave(file)
                done(error)

        return report

    def _write_apart(self, write: _Write) -> None:
        """Write through a descriptor for this write alone, which the sync lane never sees."""
        file = write.file
        apart = StagedFile(file.upload_id, file.path, file.durable_bytes)
        try:
            self._open_one(apart)
            self._disk.write(apart, write.pieces, write.offset)
            self._disk.before_close(file, apart.fd)
        finally:
            file.directory_unsynced |= apart.directory_unsynced
            self._close_one(apart)

    def _open_one(self, file: StagedFile) -> None:
        if not file.durable_bytes:
            file.fd = self._files.create(file.path)
            self._open_files += 1
            file.directory_unsynced = True
            return
        file.fd = self._files.open(file.path)
        self._open_files += 1
        if self._files.size(file.fd) < file.durable_bytes:
            # Writing on would leave a hole where bytes were acknowledged.
            raise OSError(errno.EIO, "the file is shorter than what was acknowledged")

    def _close_one(self, file: StagedFile) -> None:
        if file.fd >= 0:
            # A failure to close says nothing about bytes that were, or will be, acknowledged: their sync does. The
            # descriptor is gone either way.
            with contextlib.suppress(OSError):
                self._files.close(file.fd)
            file.fd = -1
            self._open_files -= 1

    # On the sync lane.

    def _sync_batch(self, batch: list[_Sync]) -> Report:
        results = [(item, self._disk.sync(item.files)) for item in batch]
        given_up, self._disk.given_up = self._disk.given_up, None

        def report() -> None:
            if given_up is not None:
                self._slower(given_up)
            for item, failed in results:
                for file in item.files.values():
                    self._leave(file)
                item.done(failed)

        return report


def _joined(batch: Sequence[_Write | _Sync | _CloseFile | Call]) -> Iterator[_Write | _Sync | _CloseFile | Call]:
    """The batch with writes joined that continue each other. Nothing but writes to other files is overtaken."""
    writes: dict[StagedFile, _Write] = {}
    for item in batch:
        if not isinstance(item, _Write):
            yield from writes.values()
            writes.clear()
            yield item
            continue
        earlier = writes.get(item.file)
        if earlier is not None and earlier.takes(item):
            earlier.join(item)
            continue
        if earlier is not None:
            yield writes.pop(item.file)
        writes[item.file] = item
    yield from writes.values()
