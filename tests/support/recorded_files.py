"""Real files that record their calls, and fail or wait on demand; and storage's callbacks as futures."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from daemon.adapters.files import SystemFiles
from daemon.storage.interface import Staging
from protocol.checksum import Buffer
from tests.support.deadlines import DEADLINE_S

Result = TypeVar("Result")
Written: TypeAlias = "asyncio.Future[OSError | None]"
Synced: TypeAlias = "asyncio.Future[dict[int, OSError]]"


class RecordedFiles(SystemFiles):
    """`calls` lists (operation, file name), `pieces` how many each write had.

    `failures` maps an operation to the error that it raises.
    `is_sound` says whether the file system's own sync is reliable, and `writes_through` whether writes can bypass the
    page cache, whatever the real file system does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_sound = True
        self.writes_through = True
        self.calls: list[tuple[str, str]] = []
        self.pieces: list[int] = []
        self.failures: dict[str, OSError] = {}
        self.holds: dict[str, threading.Event] = {}
        self.open_names: dict[int, str] = {}

    def named(self, *operations: str) -> list[tuple[str, str]]:
        """The calls of these operations, in order."""
        return [call for call in self.calls if call[0] in operations]

    def hold(self, operation: str) -> Callable[[], None]:
        """Make the operation wait until the returned function is called."""
        event = self.holds[operation] = threading.Event()
        return event.set

    def create_directory(self, path: Path, mode: int = 0o700) -> bool:
        self._called("create_directory", path.name)
        return super().create_directory(path, mode)

    def open(self, path: Path) -> int:
        self._called("open", path.name)
        return self._opened(super().open(path), path)

    def create(self, path: Path) -> int:
        self._called("create", path.name)
        return self._opened(super().create(path), path)

    def open_to_read(self, path: Path) -> int:
        self._called("open_to_read", path.name)
        return self._opened(super().open_to_read(path), path)

    def duplicate(self, fd: int) -> int:
        own = super().duplicate(fd)
        self.open_names[own] = "a duplicate"
        return own

    def close(self, fd: int) -> None:
        name = self.open_names.pop(fd)
        super().close(fd)
        self._called("close", name)

    def write(self, fd: int, pieces: Sequence[Buffer], offset: int) -> None:
        self._called("write", self.open_names[fd])
        self.pieces.append(len(pieces))
        super().write(fd, pieces, offset)

    def write_through(self, fd: int, pieces: Sequence[Buffer], offset: int) -> bool:
        self._called("write_through", self.open_names[fd])
        SystemFiles.write(self, fd, pieces, offset)
        return self.writes_through

    def size(self, fd: int) -> int:
        self._called("size", self.open_names[fd])
        return super().size(fd)

    def start_sync(self, fd: int) -> None:
        self._called("start_sync", self.open_names[fd])
        super().start_sync(fd)

    def sync_data(self, fd: int) -> None:
        self._called("sync_data", self.open_names[fd])
        super().sync_data(fd)

    def sync_directory(self, path: Path) -> None:
        self._called("sync_directory", path.name)
        super().sync_directory(path)

    def open_directory(self, path: Path) -> int:
        return self._opened(super().open_directory(path), path)

    def is_one_sound_file_system(self, directories: Sequence[Path]) -> bool:
        return self.is_sound and len({path.stat().st_dev for path in directories}) == 1

    def sync_file_system(self, fd: int) -> None:
        self._called("sync_file_system", self.open_names[fd])
        super().sync_file_system(fd)

    def remove(self, path: Path) -> int:
        self._called("remove", path.name)
        return super().remove(path)

    def _opened(self, fd: int, path: Path) -> int:
        self.open_names[fd] = path.name
        return fd

    def _called(self, operation: str, name: str) -> None:
        self.calls.append((operation, name))
        if operation in self.holds and not self.holds[operation].wait(DEADLINE_S):
            raise TimeoutError(f"{operation} was never released")
        if operation in self.failures:
            raise self.failures[operation]


def write(staging: Staging, upload_id: int, offset: int, *pieces: bytes, durable_bytes: int = 0) -> Written:
    """Write. The future gets the arguments of `done`."""
    done: Written = asyncio.get_running_loop().create_future()
    staging.write(upload_id, offset, pieces, durable_bytes, done.set_result)
    return done


def sync(staging: Staging, *upload_ids: int) -> Synced:
    """Sync. The future gets the arguments of `done`."""
    done: Synced = asyncio.get_running_loop().create_future()
    staging.sync(upload_ids, done.set_result)
    return done


async def within(awaited: "asyncio.Future[Result]") -> Result:
    """Await with a deadline."""
    return await asyncio.wait_for(awaited, DEADLINE_S)
