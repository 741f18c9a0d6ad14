"""Writes that wait together and continue each other become one call."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from daemon.storage.local.staging import JOINED_BYTES_MAX
from daemon.storage.local.storage import LocalStorage
from tests.daemon.storage.local.conftest import FAILURE
from tests.support.recorded_files import RecordedFiles, Written, sync, within, write
from tests.support.storage_paths import name, path_of


@pytest.fixture
async def busy(storage: LocalStorage, files: RecordedFiles) -> LocalStorage:
    """Storage whose files 1 and 2 have each one byte, and whose next writes wait together."""
    for upload_id in (1, 2):
        await within(write(storage.staging, upload_id, 0, b"0"))
    return storage


async def together(files: RecordedFiles, storage: LocalStorage, *writes: tuple[int, int, bytes]) -> list[Written]:
    """Queue writes while the disk is busy with another one, then let it go on."""
    let_go = files.hold("write")
    first = write(storage.staging, 3, 0, b"x")
    done = [write(storage.staging, *each) for each in writes]
    files.calls.clear()
    let_go()
    await within(first)
    return done


async def test_writes_that_continue_each_other_are_one_call(
    tmp_path: Path, busy: LocalStorage, files: RecordedFiles
) -> None:
    writes = [(1 + at % 2, 1 + at // 2, bytes([65 + at])) for at in range(20)]
    done = await together(files, busy, *writes)
    assert await within(asyncio.gather(*done)) == [None] * 20
    assert [each for each in files.named("write") if each[1] != name(3)] == [("write", name(1)), ("write", name(2))]
    assert path_of(tmp_path, 1).read_bytes() == b"0ACEGIKMOQS"
    assert path_of(tmp_path, 2).read_bytes() == b"0BDFHJLNPRT"


async def test_a_gap_or_a_copy_begins_another_call(tmp_path: Path, busy: LocalStorage, files: RecordedFiles) -> None:
    done = await together(files, busy, (1, 1, b"ab"), (1, 5, b"f"), (1, 6, b"g"), (1, 1, b"AB"))
    assert await within(asyncio.gather(*done)) == [None] * 4
    assert len([each for each in files.named("write") if each[1] == name(1)]) == 3
    assert path_of(tmp_path, 1).read_bytes() == b"0AB\0\0fg"


async def test_a_sync_between_two_writes_keeps_its_place(busy: LocalStorage, files: RecordedFiles) -> None:
    let_go = files.hold("write")
    write(busy.staging, 3, 0, b"x")
    write(busy.staging, 1, 1, b"a")
    synced = sync(busy.staging, 1)
    last = write(busy.staging, 1, 2, b"b")
    files.calls.clear()
    let_go()
    assert await within(synced) == {}
    assert await within(last) is None
    assert len([each for each in files.named("write") if each[1] == name(1)]) == 2


async def test_large_writes_stay_apart(busy: LocalStorage, files: RecordedFiles) -> None:
    half = bytes(JOINED_BYTES_MAX // 2)
    done = await together(files, busy, (1, 0, half), (1, len(half), half), (1, 2 * len(half), half))
    assert await within(asyncio.gather(*done)) == [None] * 3
    assert len([each for each in files.named("write_through") if each[1] == name(1)]) == 2


async def test_a_failure_reaches_each_of_the_joined_writes_in_order(busy: LocalStorage, files: RecordedFiles) -> None:
    reported: list[tuple[int, OSError | None]] = []

    def note(at: int, error: OSError | None) -> None:
        reported.append((at, error))

    let_go = files.hold("write")
    files.failures["write"] = FAILURE
    for at in range(5):
        busy.staging.write(1, 1 + at, [b"x"], 0, partial(note, at))
    last = write(busy.staging, 2, 1, b"y")
    let_go()
    assert await within(last) is FAILURE
    assert reported == [(at, FAILURE) for at in range(5)]
