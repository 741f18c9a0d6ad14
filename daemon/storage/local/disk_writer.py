"""Writes the files of uploads and makes them durable: one by one, or all at once when they are many.

A sync of one file costs a flush of the disk. Measured on ext4 with 4 KiB appended to each: 10 files one by one 1.8 ms,
in one sync of the file system 0.6 ms; 1,000 files 165 ms and 12 ms.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.adapters.files import FileSystem
from protocol.checksum import Buffer

TOGETHER_FILES_MIN = 16
"""Fewer files are synced one by one: a millisecond or two slower, but no wait for what other programs wrote."""

AHEAD_BYTES = 1024 * 1024
"""The disk is told to start after this many bytes of a file, so that a sync waits only for the last of them."""

PAGE_BYTES = 4096
"""A page of memory. One that is partly written must stay in memory, or it is read back before its rest is written."""

COPIED_BYTES_MAX = 512
"""Pieces that are smaller on average are copied into one. The system takes longer to look at each."""

THROUGH_BYTES_MIN = 64 * 1024
"""A write of this size is not kept in memory: the disk starts on it at once.

Measured on ext4, a sync each 16 MiB, median MiB/s of kept and not kept: 16 KiB at a time 1,102 and 726, 64 KiB 1,343
and 1,447, 256 KiB 415 and 1,403, where the cost of keeping was that of memory nobody had touched before.
"""


@dataclass(slots=True, eq=False)
class StagedFile:
    """An upload's file while it is written. Only the write lane changes `fd`; the event loop counts `users`.

    `is_unsynced`: no sync that covers its last write was asked for yet, so it must not be forgotten. `unstarted_bytes`
    were written since the disk was last told to start. `needs_together`: a descriptor through which bytes were written
    is closed, so only the file system's own sync can report their loss.
    """

    upload_id: int
    path: Path
    durable_bytes: int
    fd: int = -1
    users: int = 0
    is_unsynced: bool = False
    directory_unsynced: bool = False
    is_released: bool = False
    error: OSError | None = None
    unstarted_bytes: int = 0
    needs_together: bool = False


class DiskWriter:
    """Writes and syncs the files in some directories.

    Without `is_durable` nothing is synced: the operating system decides when to write what is kept in memory.

    Files are synced together only where all directories lie on the file system of `root`, and where its sync keeps
    its promise. The catalog lies there too: on a file system that has become read-only a sync succeeds and writes
    nothing, but then the catalog's commit fails.
    """

    def __init__(self, files: FileSystem, root: Path, directories: Sequence[Path], is_durable: bool) -> None:
        self._files = files
        self._is_durable = is_durable
        self._file_system: int | None = None
        self.given_up: OSError | None = None
        """Why files are no longer synced together; None unless that has just ended."""
        if is_durable and files.is_one_sound_file_system([root, *directories]):
            self._file_system = files.open_directory(root)

    def write(self, file: StagedFile, pieces: Sequence[Buffer], offset: int) -> None:
        """Write to the file, on the write lane. The disk starts on large amounts at once. Raises OSError."""
        count = sum(map(len, pieces))
        if len(pieces) > 1 and count <= COPIED_BYTES_MAX * len(pieces):
            pieces = (b"".join(pieces),)
        whole = (offset + count) // PAGE_BYTES * PAGE_BYTES - offset
        if whole < THROUGH_BYTES_MIN:
            self._files.write(file.fd, pieces, offset)
            self._start(file, count)
            return
        full, rest = (pieces, ()) if whole == count else _split(pieces, whole)
        if not self._files.write_through(file.fd, full, offset):
            self._start(file, whole)
        if rest:
            self._files.write(file.fd, rest, offset + whole)

    def before_close(self, file: StagedFile, fd: int) -> None:
        """Prepare to close `fd`, through which unsynced bytes were written, on the write lane. Raises OSError.

        The file system's own sync reports lost bytes whether or not their file is open.
        """
        if self._file_system is not None:
            file.needs_together = True
        elif self._is_durable:
            self._files.sync_data(fd)

    def sync(self, files: Mapping[int, StagedFile]) -> dict[int, OSError]:
        """Make the bytes and names of the files durable; returns the failures by upload id."""
        failed = {upload_id: file.error for upload_id, file in files.items() if file.error is not None}
        if not self._is_durable:
            return failed
        sound = {upload_id: file for upload_id, file in files.items() if file.error is None}
        are_many = len(sound) >= TOGETHER_FILES_MIN or any(file.needs_together for file in sound.values())
        if are_many and self._sync_together():
            for file in sound.values():
                file.directory_unsynced = False
            return failed
        return failed | self._sync_each(sound)

    def close(self) -> None:
        """Give the descriptor back. A later `sync` goes file by file."""
        if self._file_system is not None:
            self._files.close(self._file_system)
            self._file_system = None

    def _start(self, file: StagedFile, count: int) -> None:
        file.unstarted_bytes += count
        if self._is_durable and file.unstarted_bytes >= AHEAD_BYTES:
            file.unstarted_bytes = 0
            self._files.start_sync(file.fd)

    def _sync_together(self) -> bool:
        if self._file_system is None:
            return False
        try:
            self._files.sync_file_system(self._file_system)
        except OSError as error:
            # The system does not say whose bytes were lost, and reports it once: a later success would cover up files
            # that failed now. Their own syncs report it, so from here on each file is synced by itself.
            self.close()
            self.given_up = error
            return False
        return True

    def _sync_each(self, files: Mapping[int, StagedFile]) -> dict[int, OSError]:
        failed: dict[int, OSError] = {}
        directories: dict[Path, list[int]] = {}
        for upload_id, file in files.items():
            error = self._sync_one(file)
            if error is not None:
                # Kept, since the system reports lost bytes once: a later sync of the same file would seem to succeed.
                failed[upload_id] = file.error = error
            if file.directory_unsynced:
                directories.setdefault(file.path.parent, []).append(upload_id)
        for directory, upload_ids in directories.items():
            try:
                self._files.sync_directory(directory)
            except OSError as error:
                failed |= dict.fromkeys(upload_ids, error)
            else:
                for upload_id in upload_ids:
                    files[upload_id].directory_unsynced = False
        return failed

    def _sync_one(self, file: StagedFile) -> OSError | None:
        if file.needs_together:
            return OSError(errno.EIO, "closed before its sync, and the file system's own sync failed")
        try:
            if file.fd >= 0:
                self._files.sync_data(file.fd)
        except OSError as error:
            return error
        return None


def _split(pieces: Sequence[Buffer], first_bytes: int) -> tuple[list[Buffer], list[Buffer]]:
    """The first bytes of the pieces, and the rest, without copying."""
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
