"""File calls on real files: nothing is written short, nothing is followed where it must not be."""

import ctypes
import errno
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from daemon.adapters.files import RWF_DONTCACHE, VECTORS_MAX, SystemFiles
from protocol.checksum import Buffer
from tests.support.umask import umask_set


@pytest.fixture
def files() -> SystemFiles:
    return SystemFiles()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def write(files: SystemFiles, path: Path, pieces: Sequence[Buffer], offset: int = 0) -> None:
    fd = files.create(path)
    try:
        files.write(fd, pieces, offset)
    finally:
        files.close(fd)


def test_a_directory_is_made_once_and_private(files: SystemFiles, tmp_path: Path) -> None:
    directory = tmp_path / "one" / "two"
    assert files.create_directory(directory)
    assert not files.create_directory(directory)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_new_file_is_private_and_an_old_one_keeps_its_bytes(files: SystemFiles, path: Path) -> None:
    with umask_set(0o077):
        write(files, path, [b"abc"])
    assert path.stat().st_mode & 0o777 == 0o600
    files.close(files.create(path))
    assert path.read_bytes() == b"abc"


def test_open_does_not_make_files(files: SystemFiles, path: Path) -> None:
    for opened in (files.open, files.open_to_read):
        with pytest.raises(FileNotFoundError):
            opened(path)
    assert not path.exists()


@pytest.mark.parametrize("call", [SystemFiles.open, SystemFiles.create, SystemFiles.open_to_read])
def test_links_are_not_followed(files: SystemFiles, path: Path, call: Callable[[SystemFiles, Path], int]) -> None:
    path.write_bytes(b"somebody else's")
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        call(files, link)


def test_what_is_open_to_read_cannot_be_written(files: SystemFiles, path: Path) -> None:
    path.write_bytes(b"abc")
    fd = files.open_to_read(path)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        files.write(fd, [b"x"], 0)
    files.close(fd)


def test_descriptors_are_not_inherited(files: SystemFiles, path: Path) -> None:
    opened = [files.create(path), files.open(path), files.open_to_read(path), files.lock(path)]
    assert not any(os.get_inheritable(fd) for fd in opened)
    for fd in opened:
        files.close(fd)


def test_pieces_are_written_one_behind_the_other(files: SystemFiles, path: Path) -> None:
    write(files, path, [b"ab", bytearray(b"cd"), b"", memoryview(b"ef")], 3)
    assert path.read_bytes() == b"\0\0\0abcdef"


def test_nothing_may_be_written(files: SystemFiles, path: Path) -> None:
    write(files, path, [])
    write(files, path, [b""])
    assert path.read_bytes() == b""


def test_more_pieces_than_the_system_takes_at_once_are_all_written(files: SystemFiles, path: Path) -> None:
    pieces = [bytes([number % 251]) for number in range(2 * VECTORS_MAX + 7)]
    write(files, path, pieces)
    assert path.read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("at_most", [1, 2, 3, 5])
def test_short_writes_are_continued(
    files: SystemFiles, path: Path, monkeypatch: pytest.MonkeyPatch, at_most: int
) -> None:
    whole = os.pwritev

    def short(fd: int, pieces: Sequence[Buffer], offset: int, flags: int) -> int:
        return whole(fd, [b"".join(pieces)[:at_most]], offset, flags)

    monkeypatch.setattr(os, "pwritev", short)
    write(files, path, [b"abc", b"defg", b"hi"], 2)
    assert path.read_bytes() == b"\0\0abcdefghi"


def test_a_write_that_fails_after_a_short_one_is_told(
    files: SystemFiles, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[int | OSError] = [2, OSError(errno.ENOSPC, "No space left on device")]

    def full(fd: int, pieces: Sequence[Buffer], offset: int, flags: int) -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OSError, match="No space left"):
        write(files, path, [b"abc"])


def test_reads_end_with_the_file(files: SystemFiles, path: Path) -> None:
    path.write_bytes(b"abcdef")
    fd = files.open(path)
    assert files.size(fd) == 6
    assert files.read(fd, 3, 1) == b"bcd"
    assert files.read(fd, 100, 4) == b"ef"
    assert files.read(fd, 100, 6) == b""
    files.close(fd)


def test_short_reads_are_continued(files: SystemFiles, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"abcdef")
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: whole(fd, min(count, 2), offset))
    fd = files.open(path)
    assert files.read(fd, 5, 0) == b"abcde"
    assert files.read(fd, 100, 1) == b"bcdef"
    files.close(fd)


def test_bytes_are_sent_until_the_socket_is_full(files: SystemFiles, path: Path) -> None:
    path.write_bytes(bytes(range(250)) * 4000)
    fd = files.open(path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        own = files.duplicate(ours.fileno())
        ours.close()
        assert files.send(fd, own, 3, 1) == 3
        assert theirs.recv(10) == b"\x01\x02\x03"
        assert files.send(fd, own, 10, 1_000_000) == 0, "the file ends"
        while files.send(fd, own, 100_000, 0):
            pass
        assert files.send(fd, own, 1, 0) is None
        files.close(own)
    files.close(fd)


def test_syncs_reach_the_system(files: SystemFiles, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, str]] = []
    named = "/proc/self/fd/{}".format
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(("data", Path(named(fd)).readlink().name)))
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(("directory", Path(named(fd)).readlink().name)))
    fd = files.create(path)
    files.sync_data(fd)
    files.close(fd)
    files.sync_directory(path.parent)
    assert synced == [("data", "file"), ("directory", path.parent.name)]


def test_a_file_is_no_directory(files: SystemFiles, path: Path) -> None:
    path.touch()
    with pytest.raises(NotADirectoryError):
        files.sync_directory(path)


def test_a_file_system_is_synced_as_a_whole(files: SystemFiles, path: Path) -> None:
    directory = files.open_directory(path.parent)
    files.sync_file_system(directory)
    files.close(directory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.sync_file_system(directory)


def test_directories_on_two_file_systems_are_not_one(files: SystemFiles, path: Path) -> None:
    assert not files.is_one_sound_file_system([path.parent, Path("/proc")])


@pytest.mark.parametrize(("kind", "is_sound"), [("ext4", True), ("fuse.sshfs", False), ("overlay", False)])
def test_only_known_file_systems_are_relied_on(
    kind: str, is_sound: bool, files: SystemFiles, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = path.parent.stat().st_dev
    mount = f"1 0 {os.major(device)}:{os.minor(device)} / / rw shared:1 - {kind} /dev/x rw\n"
    monkeypatch.setattr(Path, "read_text", lambda _: mount)
    assert files.is_one_sound_file_system([path.parent, path.parent]) is is_sound


def test_a_file_system_of_which_nothing_is_told_is_not_relied_on(
    files: SystemFiles, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(_: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", hidden)
    assert not files.is_one_sound_file_system([path.parent])


def test_a_kernel_that_keeps_lost_bytes_to_itself_is_not_relied_on(
    files: SystemFiles, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.16.19-generic"))
    assert not files.is_one_sound_file_system([path.parent])


class _Flags:
    """Records the flags of each write. `refusal` is what the system says to any."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refusal: int | None = None) -> None:
        self.given: list[int] = []
        self._write, self._refusal = os.pwritev, refusal
        monkeypatch.setattr(os, "pwritev", self._pwritev)

    def _pwritev(self, fd: int, pieces: Sequence[Buffer], offset: int, flags: int = 0) -> int:
        self.given.append(flags)
        if flags and self._refusal is not None:
            raise OSError(self._refusal, os.strerror(self._refusal))
        return self._write(fd, pieces, offset)


def test_what_is_written_through_is_in_the_file(files: SystemFiles, path: Path) -> None:
    fd = files.create(path)
    files.write_through(fd, [b"a" * 4096, b"b" * 4096], 4096)
    files.sync_data(fd)
    files.close(fd)
    assert path.read_bytes() == bytes(4096) + b"a" * 4096 + b"b" * 4096


def test_more_pieces_than_one_call_takes_are_written_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.16.0"))
    files, flags = SystemFiles(), _Flags(monkeypatch)
    fd = files.create(path)
    assert files.write_through(fd, [bytes([number % 256]) for number in range(2 * VECTORS_MAX)], 0)
    files.close(fd)
    assert flags.given == [RWF_DONTCACHE, RWF_DONTCACHE]
    assert path.read_bytes() == bytes(range(256)) * (2 * VECTORS_MAX // 256)


def test_a_file_system_that_cannot_write_through_is_asked_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.16.0"))
    files, flags = SystemFiles(), _Flags(monkeypatch, errno.EOPNOTSUPP)
    fd = files.create(path)
    assert not files.write_through(fd, [b"ab"], 0)
    assert not files.write_through(fd, [b"cd"], 2)
    files.close(fd)
    assert flags.given == [RWF_DONTCACHE, 0, 0]
    assert path.read_bytes() == b"abcd"


def test_a_kernel_that_may_drop_what_was_written_is_not_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.15.11-generic"))
    files, flags = SystemFiles(), _Flags(monkeypatch)
    fd = files.create(path)
    assert not files.write_through(fd, [b"ab"], 0)
    files.close(fd)
    assert flags.given == [0]


def test_a_full_disk_is_told_when_written_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.16.0"))
    files, flags = SystemFiles(), _Flags(monkeypatch, errno.ENOSPC)
    fd = files.create(path)
    with pytest.raises(OSError, match="No space left"):
        files.write_through(fd, [b"ab"], 0)
    files.close(fd)
    assert flags.given == [RWF_DONTCACHE]


def test_the_disk_begins_with_what_was_written(files: SystemFiles, path: Path) -> None:
    fd = files.create(path)
    files.write(fd, [b"x"], 0)
    files.start_sync(fd)
    files.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.start_sync(fd)


class _Refusing:
    """A system whose `sync_file_range` fails."""

    def __init__(self, number: int) -> None:
        self._number = number

    def sync_file_range(self, *_: int) -> int:
        ctypes.set_errno(self._number)
        return -1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_bytes_that_have_no_place_are_told(files: SystemFiles, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("daemon.adapters.files._libc", _Refusing(number))
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as failed:
        files.start_sync(0)
    assert failed.value.errno == number


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL])
def test_where_the_disk_cannot_be_told_to_begin_nothing_is_lost(
    files: SystemFiles, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("daemon.adapters.files._libc", _Refusing(number))
    files.start_sync(0)


def test_what_is_removed_tells_its_size_and_what_is_gone_none(files: SystemFiles, path: Path) -> None:
    path.write_bytes(b"abc")
    assert files.remove(path) == 3
    assert files.remove(path) == 0


def test_a_file_moves_with_its_bytes(files: SystemFiles, path: Path) -> None:
    path.write_bytes(b"abc")
    files.move(path, path.with_name("moved"))
    assert not path.exists()
    assert path.with_name("moved").read_bytes() == b"abc"


def test_names_and_times(files: SystemFiles, path: Path) -> None:
    path.touch()
    path.with_name("link").symlink_to("nowhere")
    os.utime(path, ns=(0, 1_234_567_890))
    assert sorted(files.names(path.parent)) == ["file", "link"]
    assert files.modified_ms(path) == 1234
    assert files.modified_ms(path.with_name("link")) is not None
    assert files.modified_ms(path.with_name("missing")) is None


def test_space_is_the_systems(files: SystemFiles, tmp_path: Path) -> None:
    space = files.space(tmp_path)
    assert space.total_bytes == os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert 0 <= space.free_bytes <= space.total_bytes


def test_a_lock_is_held_once_until_it_is_closed(files: SystemFiles, path: Path) -> None:
    held = files.lock(path)
    with pytest.raises(BlockingIOError):
        files.lock(path)
    files.close(held)
    files.close(files.lock(path))
