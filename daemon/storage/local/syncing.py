"""What one cycle wrote is made durable: file by file, or all at once where they are many.

A sync of one file costs a flush of the disk. Measured on ext4 with 4 KiB appended to each: 10 files one by one 1.8 ms,
in one sync of the file system 0.6 ms; 1,000 files 165 ms and 12 ms.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.adapters.files import Buffer, FileSystem

TOGETHER_FILES_MIN = 16
"""Below it the files' own syncs cost a millisecond or two more, and wait for nothing that others wrote beside them."""

AHEAD_BYTES = 1024 * 1024
"""The disk is told to begin each time a file has got so much: a sync then waits for the last of it alone."""

PAGE_BYTES = 4096
"""Of memory. A page that was partly written and is not kept would have to be read before its rest is written."""

THROUGH_BYTES_MIN = 64 * 1024
"""So much at a time is not kept in memory: the disk begins with each by itself.

Measured on ext4, a sync each 16 MiB, median MiB/s of kept and not kept: 16 KiB at a time 1,102 and 726, 64 KiB 1,343
and 1,447, 256 KiB 415 and 1,403, where the cost of keeping was that of memory nobody had touched before.
"""


@dataclass(slots=True, eq=False)
class Handle:
    """An upload's file while it is written. Only the write lane changes `fd`; the event loop counts `users`.

    `is_unsynced`: a sync that covers its last write was not asked for yet, so it must stay known. `unstarted_bytes`
    were written since the disk was last told to begin. `needs_together`: bytes of it were written through a descriptor
    that is closed, so that from then on only the file system's own sync speaks for it.
    """

    upload_id: int
    path: Path
    durable_bytes: int
    fd: int = -1
    users: int = 0
    is_unsynced: bool = False
    directory_unsynced: bool = False
    is_dropped: bool = False
    error: OSError | None = None
    unstarted_bytes: int = 0
    needs_together: bool = False


class Syncing:
    """Syncs the files of some directories. Without `is_durable` when to write is left to the operating system, but for
    what is not kept in memory.

    They are only ever synced together where all of them lie on the file system of `root`, and where its sync keeps its
    word. The catalog lies there too: had the file system become read-only, its sync would succeed and write nothing,
    but what the catalog then records fails.
    """

    def __init__(self, files: FileSystem, root: Path, directories: Sequence[Path], is_durable: bool) -> None:
        self._files = files
        self._is_durable = is_durable
        self._file_system: int | None = None
        self.given_up: OSError | None = None
        """Why files are not synced together any more, though they were."""
        if is_durable and files.is_one_sound_file_system([root, *directories]):
            self._file_system = files.open_directory(root)

    def write(self, handle: Handle, pieces: Sequence[Buffer], offset: int) -> None:
        """Write to the file; from the write lane. The disk begins with what is a good deal. Raises OSError."""
        count = sum(map(len, pieces))
        whole = (offset + count) // PAGE_BYTES * PAGE_BYTES - offset
        if whole < THROUGH_BYTES_MIN:
            self._files.write(handle.fd, pieces, offset)
            self._begin(handle, count)
            return
        full, rest = (pieces, ()) if whole == count else _parted(pieces, whole)
        if not self._files.write_through(handle.fd, full, offset):
            self._begin(handle, whole)
        if rest:
            self._files.write(handle.fd, rest, offset + whole)

    def before_close(self, handle: Handle, fd: int) -> None:
        """What was written through `fd` was not synced, and it is about to be closed; from the write lane.

        Raises OSError. The file system's own sync tells of lost bytes whether or not their file is open.
        """
        if self._file_system is not None:
            handle.needs_together = True
        elif self._is_durable:
            self._files.sync_data(fd)

    def sync(self, handles: Mapping[int, Handle]) -> dict[int, OSError]:
        """Make all that was written to the files durable, and their names; by upload id, what failed."""
        failed = {upload_id: handle.error for upload_id, handle in handles.items() if handle.error is not None}
        if not self._is_durable:
            return failed
        sound = {upload_id: handle for upload_id, handle in handles.items() if handle.error is None}
        are_many = len(sound) >= TOGETHER_FILES_MIN or any(handle.needs_together for handle in sound.values())
        if are_many and self._sync_together():
            for handle in sound.values():
                handle.directory_unsynced = False
            return failed
        return failed | self._sync_each(sound)

    def close(self) -> None:
        """Give the descriptor back; a later `sync` goes file by file."""
        if self._file_system is not None:
            self._files.close(self._file_system)
            self._file_system = None

    def _begin(self, handle: Handle, count: int) -> None:
        handle.unstarted_bytes += count
        if self._is_durable and handle.unstarted_bytes >= AHEAD_BYTES:
            handle.unstarted_bytes = 0
            self._files.start_sync(handle.fd)

    def _sync_together(self) -> bool:
        if self._file_system is None:
            return False
        try:
            self._files.sync_file_system(self._file_system)
        except OSError as error:
            # It does not say whose bytes were lost, and says so once: a later success would speak for files that have
            # failed now. Their own syncs tell, so from here on each file is asked.
            self.close()
            self.given_up = error
            return False
        return True

    def _sync_each(self, handles: Mapping[int, Handle]) -> dict[int, OSError]:
        failed: dict[int, OSError] = {}
        directories: dict[Path, list[int]] = {}
        for upload_id, handle in handles.items():
            error = self._sync_one(handle)
            if error is not None:
                # Kept, since the system tells of lost bytes once: a later sync of the same file would seem to succeed.
                failed[upload_id] = handle.error = error
            if handle.directory_unsynced:
                directories.setdefault(handle.path.parent, []).append(upload_id)
        for directory, upload_ids in directories.items():
            try:
                self._files.sync_directory(directory)
            except OSError as error:
                failed |= dict.fromkeys(upload_ids, error)
            else:
                for upload_id in upload_ids:
                    handles[upload_id].directory_unsynced = False
        return failed

    def _sync_one(self, handle: Handle) -> OSError | None:
        if handle.needs_together:
            return OSError(errno.EIO, "closed before its sync, and the file system's own sync failed")
        try:
            if handle.fd >= 0:
                self._files.sync_data(handle.fd)
        except OSError as error:
            return error
        return None


def _parted(pieces: Sequence[Buffer], first_bytes: int) -> tuple[list[Buffer], list[Buffer]]:
    """The first bytes of the pieces, and the rest; nothing is copied."""
    first: list[Buffer] = []
    rest: list[Buffer] = []
    for piece in pieces:
        here = min(first_bytes, len(piece))
        first_bytes -= here
        if here:
            first.append(memoryview(piece)[:here])
        if here < len(piece):
            rest.append(memoryview(piece)[here:])
    return first, rest
