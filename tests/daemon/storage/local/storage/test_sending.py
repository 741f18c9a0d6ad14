"""Sending while others write: what is received comes first."""

import socket
from contextlib import aclosing
from pathlib import Path

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.storage.local import reading
from daemon.storage.local.storage import LocalStorage
from tests.daemon.storage.local.storage.conftest import FAILURE, OPEN_FILES_MAX
from tests.support.fake_machine import FakeClock
from tests.support.recorded_files import RecordedFiles, within, write


@pytest.mark.parametrize("fails", [False, True], ids=["written", "not written"])
async def test_a_send_gives_way_after_each_piece_until_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(reading, "SEND_BYTES", 1000)
    files = RecordedFiles()
    storage = LocalStorage(tmp_path, files, SystemThreads(), FakeClock(), OPEN_FILES_MAX)
    await within(write(storage, 1, 0, bytes(9_000)))
    opened = await storage.open(1)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    let_go = files.hold("write")
    if fails:
        files.failures["write"] = FAILURE
    written = write(storage, 2, 0, b"a chunk")
    with ours, theirs:
        async with aclosing(opened.send(ours.fileno(), 0, 9_000)) as steps:
            assert await anext(steps) == 1000
            assert await anext(steps) == 1000
            let_go()
            assert (await within(written) is not None) is fails
            assert await anext(steps) == 7000
    await opened.close()
    await storage.close()
