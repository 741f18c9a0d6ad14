import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.storage.local.disk_writer import (
    AHEAD_BYTES,
    COPIED_BYTES_MAX,
    PAGE_BYTES,
    THROUGH_BYTES_MIN,
    TOGETHER_FILES_MIN,
    DiskWriter,
    StagedFile,
)
from tests.support.recorded_files import RecordedFiles

FAILURE = OSError(errno.EIO, "the disk is gone")


@pytest.fixture
def files() -> RecordedFiles:
    return RecordedFiles()


@pytest.fixture
def staged(files: RecordedFiles, tmp_path: Path) -> Iterator[dict[int, StagedFile]]:
    """As many new files, with a byte each, as are synced together."""
    made = {}
    for number in range(TOGETHER_FILES_MIN):
        path = tmp_path / f"{number}"
        made[number] = StagedFile(number, path, 0, files.create(path), directory_unsynced=True)
        files.write(made[number].fd, [b"x"], 0)
    files.calls.clear()
    yield made
    for handle in made.values():
        files.close(handle.fd)


@pytest.fixture
def writer(files: RecordedFiles, tmp_path: Path) -> Iterator[DiskWriter]:
    made = DiskWriter(files, tmp_path, [tmp_path], is_durable=True)
    yield made
    made.close()


def test_many_files_and_their_names_are_synced_together(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile]
) -> None:
    assert writer.sync(staged) == {}
    assert [operation for operation, _ in files.calls] == ["sync_file_system"]
    assert not any(handle.directory_unsynced for handle in staged.values())


def test_few_files_are_synced_one_by_one(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile]
) -> None:
    del staged[0]
    assert writer.sync(staged) == {}
    assert len(files.named("sync_data")) == len(staged)
    assert len(files.named("sync_directory")) == 1
    assert files.named("sync_file_system") == []


def test_a_file_whose_write_failed_is_reported_and_not_synced(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile]
) -> None:
    staged[3].error = FAILURE
    assert writer.sync(staged) == {3: FAILURE}
    assert ("sync_data", "3") not in files.calls
    assert staged[3].directory_unsynced


def test_when_the_sync_of_all_fails_each_file_is_synced_by_itself(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile]
) -> None:
    files.failures["sync_file_system"] = FAILURE
    assert writer.sync(staged) == {}
    assert len(files.named("sync_data")) == len(staged)
    assert not any(handle.directory_unsynced for handle in staged.values())


def test_after_one_such_failure_files_are_always_synced_one_by_one(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile]
) -> None:
    """The system reports lost bytes once: a file that was not in that cycle must still be synced by itself."""
    files.failures["sync_file_system"] = FAILURE
    writer.sync(staged)
    del files.failures["sync_file_system"]
    files.failures["sync_data"] = FAILURE
    assert writer.sync(staged) == dict.fromkeys(staged, FAILURE)
    assert len(files.named("sync_file_system")) == 1


def test_where_the_file_system_makes_no_promise_files_are_synced_one_by_one(
    files: RecordedFiles, tmp_path: Path, staged: dict[int, StagedFile]
) -> None:
    files.is_sound = False
    assert DiskWriter(files, tmp_path, [tmp_path], is_durable=True).sync(staged) == {}
    assert len(files.named("sync_data")) == len(staged)


def test_the_disk_starts_once_a_file_has_enough_bytes(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile]
) -> None:
    little = THROUGH_BYTES_MIN - 1
    for count in range(AHEAD_BYTES // little + 1):
        writer.write(staged[0], [bytes(little)], count * little)
        writer.write(staged[1], [b"x"], count)
    assert files.named("start_sync") == [("start_sync", "0")]
    assert files.named("write_through") == []


@pytest.mark.parametrize(("size", "written"), [(COPIED_BYTES_MAX, 1), (COPIED_BYTES_MAX + 1, 8)])
def test_many_small_pieces_are_written_as_one(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile], size: int, written: int
) -> None:
    writer.write(staged[0], [bytes([at]) * size for at in range(8)], 0)
    assert files.pieces[-1] == written
    assert staged[0].path.read_bytes()[: 8 * size] == b"".join(bytes([at]) * size for at in range(8))


def test_large_writes_go_through_to_the_disk(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile]
) -> None:
    for offset in range(0, 2 * AHEAD_BYTES, THROUGH_BYTES_MIN):
        writer.write(staged[0], [bytes(THROUGH_BYTES_MIN)], offset)
    assert set(files.named("write", "write_through")) == {("write_through", "0")}
    assert files.named("start_sync") == []


def test_where_writes_cannot_go_through_the_disk_is_told_to_start(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile]
) -> None:
    files.writes_through = False
    writer.write(staged[0], [bytes(AHEAD_BYTES)], 0)
    assert files.named("write_through", "start_sync") == [("write_through", "0"), ("start_sync", "0")]


@pytest.mark.parametrize("sizes", [[THROUGH_BYTES_MIN + 1], [THROUGH_BYTES_MIN, 1], [3, THROUGH_BYTES_MIN - 3, 1]])
def test_a_partly_written_page_stays_in_memory(
    writer: DiskWriter, files: RecordedFiles, staged: dict[int, StagedFile], sizes: list[int]
) -> None:
    data = bytes(number % 251 for number in range(2 * THROUGH_BYTES_MIN + PAGE_BYTES))
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    writer.write(staged[0], pieces, 0)
    assert files.named("write", "write_through") == [("write_through", "0"), ("write", "0")]
    files.calls.clear()
    writer.write(staged[0], [data[start:]], start)
    assert files.named("write", "write_through") == [("write_through", "0")]
    assert files.read(staged[0].fd, len(data) + 1, 0) == data


def test_without_durability_nothing_is_synced(
    files: RecordedFiles, tmp_path: Path, staged: dict[int, StagedFile]
) -> None:
    writer = DiskWriter(files, tmp_path, [tmp_path], is_durable=False)
    staged[3].error = FAILURE
    writer.write(staged[0], [bytes(AHEAD_BYTES)], 0)
    for start in range(0, AHEAD_BYTES, PAGE_BYTES):
        writer.write(staged[1], [bytes(PAGE_BYTES)], start)
    assert writer.sync(staged) == {3: FAILURE}
    assert files.named("start_sync", "sync_file_system", "sync_data", "sync_directory") == []
    assert files.named("write_through") == [("write_through", "0")], "to keep it in memory costs more than the disk"
