import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.storage.syncing import AHEAD_BYTES, TOGETHER_FILES_MIN, Handle, Syncing
from tests.daemon.storage.files import RecordedFiles

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
    for _ in range(3):
        syncing.written(handles[0], AHEAD_BYTES // 2)
        syncing.written(handles[1], 1)
    assert files.named("start_sync") == [("start_sync", "0")]


def test_without_durability_nothing_is_synced(files: RecordedFiles, tmp_path: Path, handles: dict[int, Handle]) -> None:
    syncing = Syncing(files, tmp_path, [tmp_path], is_durable=False)
    handles[3].error = FAILURE
    syncing.written(handles[0], AHEAD_BYTES)
    assert syncing.sync(handles) == {3: FAILURE}
    assert files.named("start_sync", "sync_file_system", "sync_data", "sync_directory") == []
