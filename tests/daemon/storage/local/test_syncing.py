import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.storage.local.syncing import AHEAD_BYTES, PAGE_BYTES, THROUGH_BYTES_MIN, TOGETHER_FILES_MIN, Handle, Syncing
from tests.support.recorded_files import RecordedFiles

FAILURE = OSError(errno.EIO, "the disk is gone")


@pytest.fixture
def files() -> RecordedFiles:
    return RecordedFiles()


@pytest.fixture
def handles(files: RecordedFiles, tmp_path: Path) -> Iterator[dict[int, Handle]]:
    """As many new files, with a byte each, as are synced together."""
    made = {}
    for number in range(TOGETHER_FILES_MIN):
        path = tmp_path / f"{number}"
        made[number] = Handle(number, path, 0, files.create(path), directory_unsynced=True)
        files.write(made[number].fd, [b"x"], 0)
    files.calls.clear()
    yield made
    for handle in made.values():
        files.close(handle.fd)


@pytest.fixture
def syncing(files: RecordedFiles, tmp_path: Path) -> Iterator[Syncing]:
    made = Syncing(files, tmp_path, [tmp_path], is_durable=True)
    yield made
    made.close()


def test_many_files_and_their_names_are_synced_together(
    syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle]
) -> None:
    assert syncing.sync(handles) == {}
    assert [operation for operation, _ in files.calls] == ["sync_file_system"]
    assert not any(handle.directory_unsynced for handle in handles.values())


def test_few_files_are_synced_one_by_one(syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle]) -> None:
    del handles[0]
    assert syncing.sync(handles) == {}
    assert len(files.named("sync_data")) == len(handles)
    assert len(files.named("sync_directory")) == 1
    assert files.named("sync_file_system") == []


def test_a_file_whose_write_failed_is_told_and_not_synced(
    syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle]
) -> None:
    handles[3].error = FAILURE
    assert syncing.sync(handles) == {3: FAILURE}
    assert ("sync_data", "3") not in files.calls
    assert handles[3].directory_unsynced


def test_when_they_fail_together_each_is_asked(
    syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle]
) -> None:
    files.failures["sync_file_system"] = FAILURE
    assert syncing.sync(handles) == {}
    assert len(files.named("sync_data")) == len(handles)
    assert not any(handle.directory_unsynced for handle in handles.values())


def test_after_one_such_failure_each_is_always_asked(
    syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle]
) -> None:
    """The system tells of lost bytes once: a file that was not in that cycle has still to be asked itself."""
    files.failures["sync_file_system"] = FAILURE
    syncing.sync(handles)
    del files.failures["sync_file_system"]
    files.failures["sync_data"] = FAILURE
    assert syncing.sync(handles) == dict.fromkeys(handles, FAILURE)
    assert len(files.named("sync_file_system")) == 1


def test_where_the_file_system_does_not_keep_its_word_each_is_asked(
    files: RecordedFiles, tmp_path: Path, handles: dict[int, Handle]
) -> None:
    files.is_sound = False
    assert Syncing(files, tmp_path, [tmp_path], is_durable=True).sync(handles) == {}
    assert len(files.named("sync_data")) == len(handles)


def test_the_disk_begins_once_a_file_has_got_a_good_deal(
    syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle]
) -> None:
    little = THROUGH_BYTES_MIN - 1
    for count in range(AHEAD_BYTES // little + 1):
        syncing.write(handles[0], [bytes(little)], count * little)
        syncing.write(handles[1], [b"x"], count)
    assert files.named("start_sync") == [("start_sync", "0")]
    assert files.named("write_through") == []


def test_much_at_a_time_goes_through_to_the_disk(
    syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle]
) -> None:
    for offset in range(0, 2 * AHEAD_BYTES, THROUGH_BYTES_MIN):
        syncing.write(handles[0], [bytes(THROUGH_BYTES_MIN)], offset)
    assert set(files.named("write", "write_through")) == {("write_through", "0")}
    assert files.named("start_sync") == []


def test_where_it_cannot_the_disk_is_told_to_begin(
    syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle]
) -> None:
    files.writes_through = False
    syncing.write(handles[0], [bytes(AHEAD_BYTES)], 0)
    assert files.named("write_through", "start_sync") == [("write_through", "0"), ("start_sync", "0")]


@pytest.mark.parametrize("sizes", [[THROUGH_BYTES_MIN + 1], [THROUGH_BYTES_MIN, 1], [3, THROUGH_BYTES_MIN - 3, 1]])
def test_a_page_that_is_not_full_stays_in_memory_for_its_rest(
    syncing: Syncing, files: RecordedFiles, handles: dict[int, Handle], sizes: list[int]
) -> None:
    data = bytes(number % 251 for number in range(2 * THROUGH_BYTES_MIN + PAGE_BYTES))
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    syncing.write(handles[0], pieces, 0)
    assert files.named("write", "write_through") == [("write_through", "0"), ("write", "0")]
    files.calls.clear()
    syncing.write(handles[0], [data[start:]], start)
    assert files.named("write", "write_through") == [("write_through", "0")]
    assert files.read(handles[0].fd, len(data) + 1, 0) == data


def test_without_durability_nothing_is_synced(files: RecordedFiles, tmp_path: Path, handles: dict[int, Handle]) -> None:
    syncing = Syncing(files, tmp_path, [tmp_path], is_durable=False)
    handles[3].error = FAILURE
    syncing.write(handles[0], [bytes(AHEAD_BYTES)], 0)
    for start in range(0, AHEAD_BYTES, PAGE_BYTES):
        syncing.write(handles[1], [bytes(PAGE_BYTES)], start)
    assert syncing.sync(handles) == {3: FAILURE}
    assert files.named("start_sync", "sync_file_system", "sync_data", "sync_directory") == []
    assert files.named("write_through") == [("write_through", "0")], "to keep it in memory costs more than the disk"
