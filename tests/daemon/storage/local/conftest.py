"""Local storage over files whose calls are recorded; at the end every one of them is closed."""

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.adapters.clock import SystemClock
from daemon.adapters.threads import SystemThreads
from daemon.storage.local.storage import LocalStorage
from tests.support.recorded_files import RecordedFiles

OPEN_FILES_MAX = 3
FAILURE = OSError(errno.EIO, "Input/output error")


@pytest.fixture
def files() -> RecordedFiles:
    return RecordedFiles()


@pytest.fixture
async def storage(tmp_path: Path, files: RecordedFiles) -> AsyncIterator[LocalStorage]:
    opened = LocalStorage(tmp_path / "data", files, SystemThreads(), SystemClock(), OPEN_FILES_MAX)
    files.calls.clear()
    yield opened
    files.failures.clear()
    await opened.close()
    assert files.open_names == {}, "every descriptor is closed at the end"
