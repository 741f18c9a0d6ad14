"""Other content under a name, or a source that changes: found before success is reported."""

import io
import os
from pathlib import Path

import pytest

from device import transfer_source
from device.exceptions import ContentChanged, SourceChanged, UploadFailed
from protocol import frames
from protocol.checksum import crc32c
from protocol.constants import Feature, UploadState
from protocol.errors import ErrorCode
from protocol.events import OpenRequested, ServerEvent
from tests.device.conftest import Uplinks
from tests.support.content import DATA
from tests.support.fake_server import FakeServer, Script, Session, breaks_stream, deque_of
from tests.support.welcomes import without

OTHER = DATA[::-1]
"""Of the same size as DATA."""


@pytest.fixture(params=["hashed first", "watched"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file on disk, below and above the size up to which files are hashed before they are sent."""
    if request.param != "hashed first":
        monkeypatch.setattr(transfer_source, "HASHED_FIRST_BYTES_MAX", len(DATA) // 2)
    path = tmp_path / "log.bin"
    path.write_bytes(DATA)
    return path


def overwrite(path: Path, data: bytes, *, same_time: bool = False) -> None:
    """Other content with another time of modification, or with the former one, as some programs set it."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if same_time else 1)))


async def test_other_content_of_the_same_size_is_not_taken_for_the_file(
    file: Path, server: FakeServer, uplinks: Uplinks
) -> None:
    async with uplinks() as uplink:
        with file.open("rb") as source:
            await uplink.send(source, "log.bin")
        overwrite(file, OTHER)
        with file.open("rb") as source, pytest.raises(ContentChanged, match=r"CONTENT_CHANGED: .*replace=True"):
            await uplink.send(source, "log.bin")
        assert server.files["log.bin"].data == DATA
        with file.open("rb") as source:
            await uplink.send(source, "log.bin", replace=True)
    assert server.files["log.bin"].data == OTHER


async def test_other_bytes_of_the_same_size_are_not_taken_for_those(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
        for source in (OTHER, io.BytesIO(OTHER)):
            with pytest.raises(ContentChanged):
                await uplink.send(source, "log.bin")
        assert (await uplink.send(io.BytesIO(DATA), "log.bin")).sent_bytes == 0
    assert server.files["log.bin"].data == DATA


async def test_a_complete_file_is_compared_though_its_time_and_size_are_the_same(
    file: Path, server: FakeServer, uplinks: Uplinks
) -> None:
    async with uplinks() as uplink:
        with file.open("rb") as source:
            await uplink.send(source, "log.bin")
        overwrite(file, OTHER, same_time=True)
        with file.open("rb") as source, pytest.raises(ContentChanged):
            await uplink.send(source, "log.bin")
        overwrite(file, DATA, same_time=True)
        with file.open("rb") as source:
            assert (await uplink.send(source, "log.bin")).sent_bytes == 0


async def test_a_complete_file_is_compared_by_crc32c_where_no_more_is_known(
    file: Path, server: FakeServer, uplinks: Uplinks
) -> None:
    for _ in range(3):
        server.scripts.append(Script(welcome=without(Feature.SHA256)))
    async with uplinks() as uplink:
        await uplink.send(OTHER, "log.bin", tag=b"same")
    for replace in (False, True):
        async with uplinks() as uplink:
            with file.open("rb") as source:
                if replace:
                    await uplink.send(source, "log.bin", tag=b"same", replace=True)
                else:
                    with pytest.raises(ContentChanged):
                        await uplink.send(source, "log.bin", tag=b"same")
    assert server.files["log.bin"].data == DATA


async def test_a_complete_file_without_a_digest_is_not_taken_for_the_source(
    server: FakeServer, uplinks: Uplinks
) -> None:
    def complete(session: Session, event: ServerEvent) -> None:
        assert isinstance(event, OpenRequested)
        opened = frames.Opened(5, UploadState.COMPLETE, UploadState.NONE, len(DATA), 0)
        session.connection.opened(event.stream, opened, len(DATA))

    server.scripts.append(Script(opens=deque_of(complete, complete)))
    async with uplinks() as uplink:
        with pytest.raises(ContentChanged, match="no digest"):
            await uplink.send(DATA, "log.bin")
        sent = await uplink.send(DATA, "log.bin", identify=False)
    assert (sent.upload_id, sent.crc32c, sent.sha256, sent.sent_bytes) == (5, None, None, 0)


@pytest.mark.parametrize("file", ["watched"], indirect=True)
async def test_a_file_that_changes_while_it_is_sent_is_not_mixed(
    file: Path, server: FakeServer, uplinks: Uplinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device.source.READ_AHEAD_BYTES", 64 * 1024)

    def change(session: Session, event: ServerEvent) -> None:
        overwrite(file, OTHER)
        session.answer(event)

    server.scripts.append(Script(chunks=deque_of(change)))
    async with uplinks(chunk_bytes=16 * 1024) as uplink:
        with file.open("rb") as source, pytest.raises(SourceChanged, match=r"changed while .*replace=True"):
            await uplink.send(source, "log.bin")
        assert server.files["log.bin"].state is UploadState.RECEIVING
        with file.open("rb") as source, pytest.raises(ContentChanged):
            await uplink.send(source, "log.bin")
        with file.open("rb") as source:
            await uplink.send(source, "log.bin", replace=True)
    assert server.files["log.bin"].data == OTHER


@pytest.mark.parametrize("file", ["hashed first"], indirect=True)
async def test_content_that_changes_after_it_was_hashed_is_not_mixed(
    file: Path, server: FakeServer, uplinks: Uplinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("source", "transfer_source"):
        monkeypatch.setattr(f"device.{module}.READ_AHEAD_BYTES", 64 * 1024)
    memory = bytearray(DATA)

    def change(session: Session, event: ServerEvent) -> None:
        memory[:] = OTHER
        overwrite(file, OTHER, same_time=True)
        session.answer(event)

    server.scripts.append(Script(opens=deque_of(change, change)))
    async with uplinks() as uplink:
        with file.open("rb") as source, pytest.raises(SourceChanged, match="its SHA-256 was"):
            await uplink.send(source, "log.bin", replace=True)
        memory[:] = DATA
        with pytest.raises(SourceChanged, match="its SHA-256 was"):
            await uplink.send(memory, "bytes")
    assert not server.files


@pytest.mark.parametrize("source", ["hashed first", "watched"])
async def test_an_upload_resumed_after_the_source_changed_is_no_mix(
    source: str, tmp_path: Path, server: FakeServer, uplinks: Uplinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of a program, the first cut off, and between them a change that left size and time as they were."""
    path = tmp_path / "log.bin"
    path.write_bytes(DATA)
    if source != "hashed first":
        monkeypatch.setattr(transfer_source, "HASHED_FIRST_BYTES_MAX", 0)
    server.scripts.append(Script(cut_after_bytes=400_000))
    server.scripts.append(Script(opens=deque_of(breaks_stream(ErrorCode.GONE))))
    async with uplinks() as uplink:
        with path.open("rb") as file, pytest.raises(UploadFailed, match="GONE"):
            await uplink.send(file, "log.bin")
    assert 0 < server.files["log.bin"].ranges.next_expected_byte < len(DATA)
    overwrite(path, OTHER, same_time=True)
    async with uplinks() as uplink:
        with path.open("rb") as file, pytest.raises(UploadFailed, match=r"CONTENT_CHANGED|DIGEST_MISMATCH"):
            await uplink.send(file, "log.bin")
        with path.open("rb") as file:
            await uplink.send(file, "log.bin", replace=True)
    assert server.files["log.bin"].data == OTHER


async def test_the_whole_file_has_its_digest_though_an_earlier_run_sent_a_part(
    file: Path, server: FakeServer, uplinks: Uplinks
) -> None:
    server.scripts.append(Script(cut_after_bytes=400_000))
    server.scripts.append(Script(opens=deque_of(breaks_stream(ErrorCode.GONE))))
    async with uplinks() as uplink:
        with file.open("rb") as source, pytest.raises(UploadFailed, match="GONE"):
            await uplink.send(source, "log.bin")
    async with uplinks() as uplink:
        with file.open("rb") as source:
            sent = await uplink.send(source, "log.bin")
    assert 0 < sent.sent_bytes < len(DATA)
    (finish,) = server.finishes
    assert (finish.size, finish.crc32c) == (len(DATA), crc32c(DATA))
    assert finish.sha256 == server.files["log.bin"].opens[0].sha256


async def test_the_digest_spans_what_was_sent_before_and_after_a_break(
    file: Path, server: FakeServer, uplinks: Uplinks
) -> None:
    server.scripts.append(Script(cut_after_bytes=400_000))
    async with uplinks(chunk_bytes=10_000) as uplink:
        with file.open("rb") as source:
            assert (await uplink.send(source, "log.bin")).resumes == 1
    (finish,) = server.finishes
    assert (finish.size, finish.crc32c) == (len(DATA), crc32c(DATA))
    assert finish.sha256 == server.files["log.bin"].opens[0].sha256


async def test_bytes_that_were_changed_on_the_way_are_not_blamed_on_the_source(
    file: Path, server: FakeServer, uplinks: Uplinks
) -> None:
    server.scripts.append(Script(finishes=deque_of(breaks_stream(ErrorCode.DIGEST_MISMATCH))))
    async with uplinks() as uplink:
        with file.open("rb") as source, pytest.raises(UploadFailed, match="DIGEST_MISMATCH"):
            await uplink.send(source, "log.bin")


async def test_who_opts_out_vouches_for_the_name(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin", identify=False)
        sent = await uplink.send(OTHER, "log.bin", identify=False)
    assert server.files["log.bin"].tag is None
    assert server.finishes == [frames.Finish(len(DATA), crc32c(DATA), None)]
    assert (sent.sent_bytes, sent.crc32c) == (0, crc32c(DATA))


async def test_a_digest_that_the_source_does_not_have_is_found(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        with pytest.raises(SourceChanged, match="not the one that was given"):
            await uplink.send(DATA, "log.bin", sha256=bytes(32))
