"""Local storage as a whole: its room, and its end."""

from pathlib import Path

from daemon.adapters.clock import SystemClock
from daemon.adapters.files import SystemFiles
from daemon.adapters.threads import SystemThreads
from daemon.storage.local.storage import LocalStorage
from tests.support.recorded_files import sync, write


async def test_space_is_that_of_the_disk(storage: LocalStorage) -> None:
    space = await storage.space()
    assert 0 < space.free_bytes <= space.total_bytes


async def test_what_was_queued_is_done_when_it_is_closed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, SystemFiles(), SystemThreads(), SystemClock(), open_files_max=4)
    written, synced = write(storage.staging, 1, 0, b"abc"), sync(storage.staging, 1)
    await storage.close()
    assert (written.result(), synced.result()) == (None, {})
