"""File calls. They may block, so they belong on a lane, except those that say that they never wait."""

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from protocol.checksum import Buffer

VECTORS_MAX = 1024
"""Pieces that one write may have (IOV_MAX on Linux)."""


SYNCFS_RELIABLE_SINCE = (5, 17)
"""Before Linux 5.8, syncfs succeeded even if bytes were lost: syncfs(2). Before 5.17 it ignored some of its errors."""

SYNCFS_SOUND = frozenset({"ext4", "xfs"})
"""On network, FUSE and overlay file systems, syncfs may succeed without syncing the storage below."""

RWF_DONTCACHE = 0x80
"""Starts write-back at once and then drops the pages from the page cache. Python has no name for this flag."""

DONTCACHE_SOUND_SINCE = (6, 16)
"""The flag is new in Linux 6.14, but before 6.16 it could drop a page that had been written to again."""

# Python has no wrapper for these calls. ctypes releases the GIL during a call.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_SYNC_FILE_RANGE_WRITE = 2

_UNABLE = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL})
"""Errors of a sandbox or a file system without the call. They are harmless: no write-back has started."""


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The size of a file system, and how much of it this process may still use."""

    total_bytes: int
    free_bytes: int


class FileSystem(Protocol):
    """The file calls that storage uses. All of them raise OSError unless they say otherwise."""

    def create_directory(self, path: Path, mode: int = 0o700) -> bool:
        """Create the directory if it is missing. Returns whether it was. The process's umask narrows `mode`."""
        ...

    def open(self, path: Path) -> int:
        """A descriptor to read and write the file, which must exist."""
        ...

    def create(self, path: Path) -> int:
        """A descriptor to read and write the file, which is created if it is missing.

        Its mode is 0640, which the daemon's umask narrows to 0600. In a directory with a default ACL, the ACL replaces
        the umask, so that an operator can let another program, such as nginx, read the files.
        """
        ...

    def open_to_read(self, path: Path) -> int:
        """A descriptor to read the file."""
        ...

    def close(self, fd: int) -> None: ...

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> None:
        """Write all pieces one after another, starting at `offset`. Short writes are continued."""
        ...

    def write_through(self, fd: int, pieces: Sequence[Buffer], offset: int) -> bool:
        """Like `write`, but starts write-back at once and bypasses the page cache if possible. Returns whether it did.

        The bytes are not durable before `sync_data`. A page that is only partly written must be read back before the
        rest of it can be written.
        """
        ...

    def read(self, fd: int, count: int, offset: int) -> bytes:
        """Read `count` bytes at `offset`, or fewer at the end of the file."""
        ...

    def send(self, fd: int, socket_fd: int, count: int, offset: int) -> int | None:
        """Send up to `count` bytes at `offset` to a connected, non-blocking socket, without a copy.

        Returns the number of bytes sent: 0 at the end of the file, None if the socket is full.
        """
        ...

    def duplicate(self, fd: int) -> int:
        """Another descriptor of the same file or socket. Never waits, so it may run on the event loop."""
        ...

    def size(self, fd: int) -> int: ...

    def start_sync(self, fd: int) -> None:
        """Start write-back of the file, so that `sync_data` has less to wait for.

        Does nothing if the system has no such call. It may be the first call to report that the disk is full.
        """
        ...

    def sync_data(self, fd: int) -> None:
        """Make the file's bytes, and the metadata needed to read them, survive a power cut (fdatasync)."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Make the names in the directory survive a power cut."""
        ...

    def open_directory(self, path: Path) -> int:
        """A descriptor of the directory."""
        ...

    def is_one_sound_file_system(self, directories: Sequence[Path]) -> bool:
        """Whether all directories are on one file system on which `sync_file_system` is reliable."""
        ...

    def sync_file_system(self, fd: int) -> None:
        """Make everything written to the file system of `fd` survive a power cut, including names (syncfs).

        Raises OSError if any write to the file system failed since `fd` was opened or last synced. The error does not
        show which file or process it was.
        """
        ...

    def remove(self, path: Path) -> int:
        """Delete the file. Returns its size in bytes, 0 if it was gone already."""
        ...

    def move(self, path: Path, to: Path) -> None: ...

    def names(self, path: Path) -> Iterator[str]:
        """The names in a directory in no particular order, without reading all of them at once."""
        ...

    def modified_ms(self, path: Path) -> int | None:
        """Unix time of the last change in milliseconds; None if the file is gone."""
        ...

    def space(self, path: Path) -> DiskSpace: ...

    def lock(self, path: Path) -> int:
        """Lock the file until the descriptor is closed. Raises BlockingIOError if another process holds the lock."""
        ...


class SystemFiles:
    """The machine's file systems."""

    __slots__ = ("_writes_through",)

    def __init__(self) -> None:
        self._writes_through = _kernel_version() >= DONTCACHE_SOUND_SINCE

    def create_directory(self, path: Path, mode: int = 0o700) -> bool:
        try:
            path.mkdir(mode, parents=True)
        except FileExistsError:
            return False
        return True

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def open_to_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> None:
        _write(fd, pieces, offset)

    def write_through(self, fd: int, pieces: Sequence[Buffer], offset: int) -> bool:
        if self._writes_through:
            try:
                _write(fd, pieces, offset, RWF_DONTCACHE)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._writes_through = False
            else:
                return True
        _write(fd, pieces, offset)
        return False

    def read(self, fd: int, count: int, offset: int) -> bytes:
        data = os.pread(fd, count, offset)
        if len(data) in (0, count):
            return data
        parts = [data]
        while data and (count := count - len(data)):
            offset += len(data)
            data = os.pread(fd, count, offset)
            parts.append(data)
        return b"".join(parts)

    def send(self, fd: int, socket_fd: int, count: int, offset: int) -> int | None:
        try:
            return os.sendfile(socket_fd, fd, offset, count)
        except BlockingIOError:
            return None

    def duplicate(self, fd: int) -> int:
        return os.dup(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def start_sync(self, fd: int) -> None:
        if _libc.sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE) and (error := _error()).errno not in _UNABLE:
            raise error

    def sync_data(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        fd = _open_directory(path)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def open_directory(self, path: Path) -> int:
        return _open_directory(path)

    def sync_file_system(self, fd: int) -> None:
        if _libc.syncfs(fd):
            raise _error()

    def is_one_sound_file_system(self, directories: Sequence[Path]) -> bool:
        if _kernel_version() < SYNCFS_RELIABLE_SINCE:
            return False
        [device, *others] = {path.stat().st_dev for path in directories}
        try:
            mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        except OSError:
            # Without /proc, as in a bare chroot, the file system's type is unknown, so files are synced one by one.
            return False
        kinds = {kind.split()[0] for place, kind in mounts if place.split()[2] == _device_numbers(device)}
        return not others and bool(kinds) and kinds <= SYNCFS_SOUND

    def remove(self, path: Path) -> int:
        try:
            size = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def move(self, path: Path, to: Path) -> None:
        path.rename(to)

    def names(self, path: Path) -> Iterator[str]:
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry.name

    def modified_ms(self, path: Path) -> int | None:
        try:
            return path.lstat().st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return None

    def space(self, path: Path) -> DiskSpace:
        found = os.statvfs(path)
        return DiskSpace(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def lock(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _device_numbers(device: int) -> str:
    """A device as written in /proc/self/mountinfo: proc(5)."""
    return f"{os.major(device)}:{os.minor(device)}"


def _kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


def _write(fd: int, pieces: Sequence[Buffer], offset: int, flags: int = 0) -> None:
    for first in range(0, len(pieces), VECTORS_MAX):
        offset = _write_all(fd, pieces[first : first + VECTORS_MAX], offset, flags)


def _write_all(fd: int, pieces: Sequence[Buffer], offset: int, flags: int = 0) -> int:
    left = sum(map(len, pieces))
    written = os.pwritev(fd, pieces, offset, flags)
    while written < left:
        # Short writes are rare (a full disk, a signal), so copying the rest does not matter.
        rest = b"".join(pieces)[-(left - written) :]
        offset, left = offset + written, left - written
        pieces = [rest]
        written = os.pwritev(fd, pieces, offset, flags)
    return offset + left
