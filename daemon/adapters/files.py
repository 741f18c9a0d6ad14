"""File calls as the daemon uses them. All of them may block, so they belong on a lane, except where said otherwise."""

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
"""Pieces the system takes in one write (IOV_MAX on Linux)."""


SYNCFS_TELLS_SINCE = (5, 17)
"""Linux before 5.8 let syncfs succeed when bytes were lost: syncfs(2). Before 5.17 it dropped an error of its own."""

SYNCFS_SOUND = frozenset({"ext4", "xfs"})
"""Network, FUSE and overlay file systems may let syncfs succeed without asking those who keep the bytes."""

RWF_DONTCACHE = 0x80
"""Python has no name for it: pages written with it go to the disk at once and out of memory when they are there."""

DONTCACHE_SOUND_SINCE = (6, 16)
"""It came with Linux 6.14, which could drop a page that had been written to again meanwhile."""

# Python has no calls for these. ctypes lets other threads run meanwhile.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_SYNC_FILE_RANGE_WRITE = 2

_UNABLE = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL})
"""What a sandbox or a file system without such a call answers: nothing was begun, and nothing is lost by it."""


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Bytes of a file system: all of it, and what this process may still use."""

    total_bytes: int
    free_bytes: int


class FileSystem(Protocol):
    """What storage may ask of the file system. Everything raises OSError."""

    def create_directory(self, path: Path, mode: int = 0o700) -> bool:
        """Make a directory if it is missing; whether it was. The process's umask narrows `mode`."""
        ...

    def open(self, path: Path) -> int:
        """A descriptor to read and write the file, which must exist."""
        ...

    def create(self, path: Path) -> int:
        """A descriptor to read and write the file, which is made if it is missing.

        Its mode is 0640, which the daemon's umask narrows to 0600. In a directory with a default ACL the ACL takes the
        umask's place, so that an operator can let others read, such as nginx.
        """
        ...

    def open_to_read(self, path: Path) -> int:
        """A descriptor to read the file."""
        ...

    def close(self, fd: int) -> None: ...

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> None:
        """Write all pieces one behind the other at `offset`; short writes are continued."""
        ...

    def write_through(self, fd: int, pieces: Sequence[Buffer], offset: int) -> bool:
        """As `write`; where the system can, the disk begins with it at once and memory keeps no new page: whether so.

        It promises nothing before `sync_data`. A page that is left partly written is read again before its rest is.
        """
        ...

    def read(self, fd: int, count: int, offset: int) -> bytes:
        """Up to `count` bytes at `offset`; fewer only at the end of the file."""
        ...

    def send(self, fd: int, socket_fd: int, count: int, offset: int) -> int | None:
        """Send up to `count` bytes at `offset` to a connected socket that does not block, without a copy.

        How many it took; 0 at the end of the file, None while it takes none.
        """
        ...

    def duplicate(self, fd: int) -> int:
        """Another descriptor of the same file or socket. Never waits, so it may run on the event loop."""
        ...

    def size(self, fd: int) -> int: ...

    def start_sync(self, fd: int) -> None:
        """Have the disk begin with what was written to the file, so that `sync_data` has less to wait for.

        Promises nothing, so where it cannot be done it is not; but may be the one who is told that bytes have no place.
        """
        ...

    def sync_data(self, fd: int) -> None:
        """Make the file's bytes, and what is needed to find them, survive a power cut (fdatasync)."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Make the names in the directory survive a power cut."""
        ...

    def open_directory(self, path: Path) -> int:
        """A descriptor of the directory."""
        ...

    def is_one_sound_file_system(self, directories: Sequence[Path]) -> bool:
        """Whether they all lie on one file system, and `sync_file_system` of it promises what it should."""
        ...

    def sync_file_system(self, fd: int) -> None:
        """Make all that anybody has written to the file system of `fd` survive a power cut, names included (syncfs).

        Raises OSError when any write to it has failed since `fd` was opened, once for each; whose is not said.
        """
        ...

    def remove(self, path: Path) -> int:
        """Delete the file; how many bytes it held, 0 if it was gone already."""
        ...

    def move(self, path: Path, to: Path) -> None: ...

    def names(self, path: Path) -> Iterator[str]:
        """The names in a directory, in no order, without reading them all at once."""
        ...

    def modified_ms(self, path: Path) -> int | None:
        """Unix time of the last change in milliseconds; None if the file is gone."""
        ...

    def space(self, path: Path) -> DiskSpace: ...

    def lock(self, path: Path) -> int:
        """Hold the file's lock until the descriptor is closed. Raises BlockingIOError while another process does."""
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
        if _kernel_version() < SYNCFS_TELLS_SINCE:
            return False
        [device, *others] = {path.stat().st_dev for path in directories}
        try:
            mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        except OSError:
            # No /proc, as in a bare chroot: then nothing is known of it, and each file is synced by itself.
            return False
        kinds = {kind.split()[0] for place, kind in mounts if place.split()[2] == _numbers(device)}
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


def _numbers(device: int) -> str:
    """As proc(5) writes a device."""
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
        # A short write is rare (a full disk, a signal): what is left is then small enough to be copied.
        rest = b"".join(pieces)[-(left - written) :]
        offset, left = offset + written, left - written
        pieces = [rest]
        written = os.pwritev(fd, pieces, offset, flags)
    return offset + left
