"""Contents in files: where they lie, and sending while others write, which comes second."""

import socket
from contextlib import aclosing
from pathlib import Path

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.storage.local import reading
from daemon.storage.local.storage import LocalStorage
from tests.daemon.storage.local.conftest import FAILURE, OPEN_FILES_MAX
from tests.support.fake_machine import FakeClock
from tests.support.recorded_files import RecordedFiles, within, write
from tests.support.storage_paths import path_of


@pytest.mark.parametrize("fails", [False, True], ids=["written", "not written"])
async def test_a_send_gives_way_after_each_piece_until_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(reading, "SEND_BYTES", 1000)
    files = RecordedFiles()
    storage = LocalStorage(tmp_path, files, SystemThreads(), FakeClock(), OPEN_FILES_MAX)
    await within(write(storage.staging, 1, 0, bytes(9_000)))
    opened = await storage.contents.open(1)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    let_go = files.hold("write")
    if fails:
        files.failures["write"] = FAILURE
    written = write(storage.staging, 2, 0, b"a chunk")
    with ours, theirs:
        async with aclosing(opened.send(ours.fileno(), 0, 9_000)) as steps:
            assert await anext(steps) == 1000
            assert await anext(steps) == 1000
            let_go()
            assert (await within(written) is not None) is fails
            assert await anext(steps) == 7000
    await opened.close()
    await storage.close()


async def test_the_path_of_an_upload_starts_below_the_files_directory(storage: LocalStorage, tmp_path: Path) -> None:
    await within(write(storage.staging, 0xABC, 0, b"x"))
    assert tmp_path / "data" / "files" / storage.contents.path(0xABC) == path_of(tmp_path, 0xABC)
    assert path_of(tmp_path, 0xABC).exists()
