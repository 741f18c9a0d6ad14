"""Uploads as files on a local disk, named by upload id, in 256 directories.

Writes go through one lane and syncs through another, so that receiving goes on while the disk makes earlier bytes
durable. A sync waits its turn behind the writes it must cover.
"""

import contextlib
import errno
import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.adapters.clock import Clock
from daemon.adapters.files import FileSystem
from daemon.adapters.threads import Lane, Report, Threads
from daemon.storage.interface import Buffer, Reading, Space, Stored
from daemon.storage.local.calls import Call, call, run_all, work_through
from daemon.storage.local.reading import Readers
from daemon.storage.local.syncing import Handle, Syncing

SHARDS = 256
"""A million files make directories of four thousand, which every file system handles well."""

SHARED_MODE = 0o750
"""The daemon's umask narrows it to 0700. With a default ACL on `files`, whom the ACL names can enter."""

UPLOAD_ID_MAX = 2**63 - 1
"""A catalog's integers end there; a file with a larger name is none of ours."""


@dataclass(frozen=True, slots=True)
class _Write:
    handle: Handle
    offset: int
    pieces: Sequence[Buffer]
    done: Callable[[OSError | None], None]


@dataclass(frozen=True, slots=True)
class _Sync:
    handles: dict[int, Handle]
    done: Callable[[dict[int, OSError]], None]


@dataclass(frozen=True, slots=True)
class _Close:
    handle: Handle


class LocalStorage:
    """Files below `root`. At most `open_files_max` stay open between writes.

    Those at rest make room for others. Where so many were written that no sync has covered yet, a write to one more
    opens its file for itself alone.

    Without `is_durable` a sync waits its turn, and then leaves the rest to the operating system. `slower` is told why
    many files will take longer from now on: their file system's own sync has failed.
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
        self._slower = slower
        self._root = root
        self._files = files
        self._open_files_max = open_files_max
        self._handles: dict[int, Handle] = {}
        self._idle: OrderedDict[int, Handle] = OrderedDict()
        self._open_files = 0
        self._writes = 0
        self._prepare()
        self._syncing = Syncing(files, root, [self._shard(shard) for shard in range(SHARDS)], is_durable)
        self._sync_lane: Lane[_Sync] = threads.lane("storage-sync", self._sync_batch)
        self._write_lane: Lane[_Write | _Sync | _Close | Call] = threads.lane("storage-write", self._write_batch)
        self._read_lane: Lane[Call] = threads.lane("storage-read", work_through)
        self._readers = Readers(files, self._read_lane, clock, lambda: self._writes > 0)

    @property
    def shards(self) -> int:
        return SHARDS

    def write(
        self,
        upload_id: int,
        offset: int,
        pieces: Sequence[Buffer],
        durable_bytes: int,
        done: Callable[[OSError | None], None],
    ) -> None:
        handle = self._handles.get(upload_id)
        if handle is None:
            handle = self._handles[upload_id] = Handle(upload_id, self._path(upload_id), durable_bytes)
            self._close_idle()
        self._use(handle)
        handle.is_unsynced = True
        self._writes += 1
        self._write_lane.put(_Write(handle, offset, pieces, done))

    def sync(self, upload_ids: Sequence[int], done: Callable[[dict[int, OSError]], None]) -> None:
        handles = {}
        for upload_id in upload_ids:
            handle = self._handles.get(upload_id)
            if handle is not None:
                self._use(handle)
                handle.is_unsynced = False
                handles[upload_id] = handle
        self._write_lane.put(_Sync(handles, done))

    def release(self, upload_id: int) -> None:
        handle = self._handles.pop(upload_id, None)
        self._idle.pop(upload_id, None)
        if handle is not None:
            handle.is_dropped = True
            if not handle.users:
                self._write_lane.put(_Close(handle))

    async def remove(self, upload_id: int) -> int:
        self.release(upload_id)
        path = self._path(upload_id)
        return await call(self._write_lane, lambda: self._files.remove(path))

    async def open(self, upload_id: int) -> Reading:
        return await self._readers.open(self._path(upload_id))

    def path(self, upload_id: int) -> str:
        return f"{upload_id % SHARDS:02x}/{upload_id:016x}"

    async def space(self) -> Space:
        found = await call(self._read_lane, lambda: self._files.space(self._root))
        return Space(found.total_bytes, found.free_bytes)

    async def stored(self, shard: int) -> tuple[Stored, ...]:
        directory = self._shard(shard)

        def run() -> tuple[Stored, ...]:
            return tuple([Stored(name, _upload_id(name, shard)) for name in self._files.names(directory)])

        return await call(self._read_lane, run)

    async def modified_ms(self, shard: int, name: str) -> int | None:
        path = self._shard(shard) / name
        return await call(self._read_lane, lambda: self._files.modified_ms(path))

    async def quarantine(self, shard: int, name: str) -> None:
        source = self._shard(shard) / name
        quarantine = self._root / "quarantine"

        def run() -> None:
            # Names stay as they are, and what was put there before under the same one is not replaced.
            places = (quarantine / f"{shard:02x}-{number}" for number in itertools.count(1))
            place = next(each for each in places if self._files.modified_ms(each / name) is None)
            self._files.create_directory(place)
            self._files.move(source, place / name)
            self._files.sync_directory(place)
            self._files.sync_directory(quarantine)

        await call(self._write_lane, run)

    async def close(self) -> None:
        for upload_id in list(self._handles):
            self.release(upload_id)
        # Writes first, then the syncs behind them, and last the files that these had in use.
        await call(self._write_lane, lambda: None)
        await self._sync_lane.close()
        self._syncing.close()
        await self._write_lane.close()
        await self._read_lane.close()

    def _prepare(self) -> None:
        shards = [self._shard(shard) for shard in range(SHARDS)]
        if self._files.create_directory(self._root):
            self._files.sync_directory(self._root.parent)
        self._files.create_directory(self._root / "quarantine")
        for directory in (self._root / "files", *shards):
            self._files.create_directory(directory, SHARED_MODE)
        # Always: the run that made them may have been cut off before this.
        self._files.sync_directory(self._root / "files")
        self._files.sync_directory(self._root)

    def _shard(self, shard: int) -> Path:
        return self._root / "files" / f"{shard:02x}"

    def _path(self, upload_id: int) -> Path:
        return self._root / "files" / self.path(upload_id)

    def _use(self, handle: Handle) -> None:
        handle.users += 1
        self._idle.pop(handle.upload_id, None)

    def _leave(self, handle: Handle) -> None:
        handle.users -= 1
        if handle.users:
            return
        if handle.is_dropped:
            self._write_lane.put(_Close(handle))
        elif not handle.is_unsynced:
            self._idle[handle.upload_id] = handle
            self._close_idle()

    def _close_idle(self) -> None:
        while self._idle and len(self._handles) > self._open_files_max:
            self.release(next(iter(self._idle)))

    # On the write lane.

    def _write_batch(self, batch: list[_Write | _Sync | _Close | Call]) -> Report:
        reports: list[Report] = []
        for item in batch:
            match item:
                case _Write():
                    reports.append(self._write_one(item))
                case _Sync():
                    self._sync_lane.put(item)
                case _Close(handle):
                    self._close_one(handle)
                case _:
                    item.work()
                    reports.append(item.report)
        return lambda: run_all(reports)

    def _write_one(self, write: _Write) -> Report:
        handle = write.handle
        error: OSError | None = None
        try:
            if handle.fd < 0 and self._open_files >= self._open_files_max:
                self._write_apart(write)
            else:
                if handle.fd < 0:
                    self._open_one(handle)
                self._syncing.write(handle, write.pieces, write.offset)
        except OSError as failure:
            # The sync behind this write may be reported first, so it must know too.
            error = handle.error = failure

        def report() -> None:
            self._writes -= 1
            self._leave(handle)
            write.done(error)

        return report

    def _write_apart(self, write: _Write) -> None:
        """Through a descriptor for this write alone, which the sync lane never sees."""
        handle = write.handle
        apart = Handle(handle.upload_id, handle.path, handle.durable_bytes)
        try:
            self._open_one(apart)
            self._syncing.write(apart, write.pieces, write.offset)
            self._syncing.before_close(handle, apart.fd)
        finally:
            handle.directory_unsynced |= apart.directory_unsynced
            self._close_one(apart)

    def _open_one(self, handle: Handle) -> None:
        if not handle.durable_bytes:
            handle.fd = self._files.create(handle.path)
            self._open_files += 1
            handle.directory_unsynced = True
            return
        handle.fd = self._files.open(handle.path)
        self._open_files += 1
        if self._files.size(handle.fd) < handle.durable_bytes:
            # To write on would leave a hole where bytes were acknowledged.
            raise OSError(errno.EIO, "the file is shorter than what was acknowledged")

    def _close_one(self, handle: Handle) -> None:
        if handle.fd >= 0:
            # A failure here says nothing of bytes that somebody was told are safe, or will be: their sync speaks for
            # those. The descriptor is gone either way.
            with contextlib.suppress(OSError):
                self._files.close(handle.fd)
            handle.fd = -1
            self._open_files -= 1

    # On the sync lane.

    def _sync_batch(self, batch: list[_Sync]) -> Report:
        results = [(item, self._syncing.sync(item.handles)) for item in batch]
        given_up, self._syncing.given_up = self._syncing.given_up, None

        def report() -> None:
            if given_up is not None:
                self._slower(given_up)
            for item, failed in results:
                for handle in item.handles.values():
                    self._leave(handle)
                item.done(failed)

        return report


def _upload_id(name: str, shard: int) -> int | None:
    """The id a name stands for, if it is one that storage gives in this shard."""
    if not re.fullmatch("[0-9a-f]{16}", name):
        return None
    upload_id = int(name, 16)
    return upload_id if upload_id % SHARDS == shard and 0 < upload_id <= UPLOAD_ID_MAX else None
