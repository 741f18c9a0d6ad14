"""One upload: refusals of ranges, verification, chunk forms, digests, progress."""

import hashlib
import io
from collections import deque

import pytest

from device.exceptions import SourceError, UploadFailed
from device.report import FileMetadata, UploadProgress
from protocol import codec, frames
from protocol.checksum import crc32c
from protocol.constants import ChecksumKind, Disposition, Feature, FrameType, UploadState
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, FinishRequested, ServerEvent
from protocol.ranges import Span
from tests.device.conftest import Uplinks
from tests.support.content import DATA, DIGEST
from tests.support.fake_server import FakeServer, Hook, Script, Session, deque_of
from tests.support.fake_time import FakeTime
from tests.support.welcomes import replaced, without


def refuse(code: ErrorCode) -> Hook:
    def hook(session: Session, event: ServerEvent) -> None:
        assert isinstance(event, ChunksReceived)
        session.connection.refuse_range(event.stream, Span(event.start, event.end), code, event.charged_bytes)

    return hook


def keep(session: Session, event: ServerEvent) -> None:
    session.answer(event)


@pytest.mark.parametrize("code", [ErrorCode.CHUNK_CORRUPT, ErrorCode.TOO_MANY_GAPS])
async def test_a_refused_range_is_sent_again_alone(code: ErrorCode, server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(chunks=deque_of(keep, refuse(code), keep, refuse(code))))
    async with uplinks(chunk_bytes=10_000) as uplink:
        sent = await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].data == DATA
    assert sent.sent_bytes == len(DATA) + sent.resent_bytes
    # A run of chunks is refused whole; two runs are at most what one read of the server brings, twice.
    assert 2 * 10_000 <= sent.resent_bytes <= 2 * (64 * 1024 + 10_000)
    assert len(server.sessions) == 1


async def test_a_refusal_that_crosses_finish_is_healed(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(chunks=deque_of(refuse(ErrorCode.CHUNK_CORRUPT))))
    async with uplinks() as uplink:
        await uplink.send(b"short", "log.bin")
    assert server.files["log.bin"].data == b"short"
    assert len(server.sessions) == 1


async def test_a_senseless_refusal_does_no_harm(server: FakeServer, uplinks: Uplinks) -> None:
    def senseless(session: Session, event: ServerEvent) -> None:
        for start, end in ((2**63, 2**64 - 1), (9, 3), (len(DATA), len(DATA) + 5)):
            session.raw(codec.encode(frames.Nack(ErrorCode.CHUNK_CORRUPT, start, end, 0), 1))
        session.answer(event)

    server.scripts.append(Script(chunks=deque_of(senseless)))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].data == DATA


async def test_ranges_beyond_the_next_byte_are_not_sent_again(server: FakeServer, uplinks: Uplinks) -> None:
    stored = server.create(frames.Open(Disposition.RESUME_OR_CREATE, len(DATA), "log.bin", tag=DIGEST))
    for start, end in ((0, 1000), (5000, 300_000), (600_000, 650_000)):
        stored.write(ChunksReceived(1, start, end, (DATA[start:end],), 1, ChecksumKind.CRC32C, None))
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin")
    assert stored.data == DATA
    assert sent.sent_bytes == len(DATA) - 1000 - 295_000 - 50_000
    assert (sent.resumes, sent.resent_bytes) == (1, 0)


async def test_an_empty_file_is_opened_and_finished(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        sent = await uplink.send(b"", "empty")
    assert (sent.size, sent.crc32c, sent.sent_bytes) == (0, 0, 0)
    assert server.files["empty"].state is UploadState.COMPLETE


@pytest.mark.parametrize("then_answered", [False, True])
async def test_finish_is_repeated_while_the_server_verifies(
    then_answered: bool, server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    def verifying(session: Session, event: ServerEvent) -> None:
        assert isinstance(event, FinishRequested)
        session.connection.send(event.stream, frames.Verifying(2500))
        session.connection.send(event.stream, frames.Ack(len(DATA)))
        if then_answered:
            session.answer(event)

    server.scripts.append(Script(finishes=deque_of(verifying, verifying)))
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin")
    assert sent.crc32c == crc32c(DATA)
    assert time.slept == ([] if then_answered else [2.5, 2.5])


async def test_a_failure_while_the_server_verifies_ends_the_wait(server: FakeServer, uplinks: Uplinks) -> None:
    def verifying(session: Session, event: ServerEvent) -> None:
        assert isinstance(event, FinishRequested)
        session.connection.send(event.stream, frames.Verifying(2500))
        session.connection.fail_stream(event.stream, ErrorCode.FENCED, "somebody else")

    server.scripts.append(Script(finishes=deque_of(verifying)))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="FENCED: somebody else"):
            await uplink.send(DATA, "log.bin")


@pytest.mark.parametrize(
    ("form", "missing", "used"),
    [
        (FrameType.CHUNK_CRC32C, Feature(0), ChecksumKind.CRC32C),
        (FrameType.CHUNK_CRC32C, Feature.CHUNK_CRC32C, ChecksumKind.SUM8),
        (FrameType.CHUNK_COMPACT, Feature(0), ChecksumKind.SUM8),
        (FrameType.CHUNK_COMPACT, Feature.CHUNK_COMPACT, ChecksumKind.SUM8),
        (FrameType.CHUNK, Feature(0), ChecksumKind.SUM8),
    ],
)
async def test_the_chunk_form_is_the_one_negotiated(
    form: FrameType, missing: Feature, used: ChecksumKind, server: FakeServer, uplinks: Uplinks
) -> None:
    """A form that was not negotiated would end the connection."""
    server.scripts.append(Script(welcome=without(missing)))
    async with uplinks(chunk_form=form, chunk_bytes=10_000) as uplink:
        await uplink.send(DATA, "log.bin")
    session = server.sessions[0]
    assert server.files["log.bin"].data == DATA
    assert len(server.sessions) == 1
    assert {event.checksum for event in session.events if isinstance(event, ChunksReceived)} == {used}
    headers = {FrameType.CHUNK: 17, FrameType.CHUNK_COMPACT: 9, FrameType.CHUNK_CRC32C: 20}
    actual = form if missing == Feature(0) else FrameType.CHUNK
    chunks = -(-len(DATA) // 10_000)
    others = session.received_bytes - len(DATA) - chunks * (8 + headers[actual])
    assert 100 < others < 400


async def test_what_the_caller_gives_with_the_file_arrives(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        sent = await uplink.send(
            io.BytesIO(DATA),
            "log.bin",
            size=1000,
            tag=b"v1",
            sha256=hashlib.sha256(DATA[:1000]).digest(),
            metadata=FileMetadata("text/plain", "ticket-7", "log.txt"),
        )
    (request,) = server.files["log.bin"].opens
    assert (request.size, request.tag, request.sha256) == (1000, b"v1", hashlib.sha256(DATA[:1000]).digest())
    assert (request.content_type, request.external_id, request.original_name) == ("text/plain", "ticket-7", "log.txt")
    assert sent.sha256 == request.sha256
    assert server.finishes == [frames.Finish(1000, crc32c(DATA[:1000]), request.sha256)]


async def test_a_digest_the_server_cannot_check_is_left_out(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(welcome=without(Feature.SHA256)))
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin", sha256=DIGEST)
        assert sent.sha256 is None
        # The first OPEN did not wait for WELCOME, so it could not know.
        await uplink.send(DATA, "other.bin", sha256=DIGEST)
    assert server.files["other.bin"].opens[0].sha256 is None
    assert server.finishes == [frames.Finish(len(DATA), crc32c(DATA), None)] * 2


async def test_without_identification_an_earlier_runs_part_is_not_read_for_a_digest(
    server: FakeServer, uplinks: Uplinks
) -> None:
    stored = server.create(frames.Open(Disposition.RESUME_OR_CREATE, len(DATA), "log.bin"))
    stored.write(ChunksReceived(1, 0, 1000, (DATA[:1000],), 1, ChecksumKind.CRC32C, None))
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin", identify=False)
    assert server.finishes == [frames.Finish(len(DATA), None, None)]
    assert sent.crc32c == crc32c(DATA)


@pytest.mark.parametrize(("size", "crc"), [(len(DATA), 1), (3, crc32c(DATA))])
async def test_a_server_that_finished_something_else_is_not_believed(
    size: int, crc: int, server: FakeServer, uplinks: Uplinks
) -> None:
    def finished(session: Session, event: ServerEvent) -> None:
        assert isinstance(event, FinishRequested)
        session.connection.finished(event.stream, frames.Finished(1, size, crc))

    server.scripts.append(Script(finishes=deque_of(finished)))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="CONTENT_CHANGED"):
            await uplink.send(DATA, "log.bin")


async def test_progress_counts_what_is_durable(server: FakeServer, uplinks: Uplinks) -> None:
    seen: list[UploadProgress] = []
    server.scripts.append(Script(cut_after_bytes=400_000))
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin", on_progress=seen.append)
    assert {(each.name, each.size) for each in seen} == {("log.bin", len(DATA))}
    durable = [each.durable_bytes for each in seen]
    assert durable == sorted(durable)
    assert (durable[0], durable[-1]) == (0, len(DATA))
    assert (seen[0].resumes, seen[-1].resumes) == (0, 1)
    assert (seen[0].sent_bytes, seen[-1].sent_bytes) == (0, sent.sent_bytes)


async def test_progress_ends_with_the_whole_though_the_last_bytes_are_not_acknowledged(
    server: FakeServer, uplinks: Uplinks
) -> None:
    seen: list[UploadProgress] = []

    def ignore(session: Session, event: ServerEvent) -> None:
        pass

    def finish(session: Session, event: ServerEvent) -> None:
        assert isinstance(event, FinishRequested)
        session.connection.finished(event.stream, frames.Finished(5, len(DATA), crc32c(DATA), None))

    server.scripts.append(Script(chunks=deque([ignore] * 1000), finishes=deque([finish])))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin", on_progress=seen.append)
    assert [each.durable_bytes for each in seen] == [0, len(DATA)]


async def test_progress_counts_ranges_beyond_the_next_byte(server: FakeServer, uplinks: Uplinks) -> None:
    seen: list[UploadProgress] = []
    server.scripts.append(
        Script(welcome=replaced(window_bytes=100_000), chunks=deque_of(refuse(ErrorCode.CHUNK_CORRUPT)))
    )
    async with uplinks(chunk_bytes=50_000) as uplink:
        await uplink.send(DATA, "log.bin", on_progress=seen.append)
    assert seen[-1].durable_bytes == len(DATA)
    assert max(each.durable_bytes for each in seen) == len(DATA)


async def test_a_file_that_shrinks_while_it_is_sent_is_reported(server: FakeServer, uplinks: Uplinks) -> None:
    big = io.BytesIO(DATA * 8)

    def cut(session: Session, event: ServerEvent) -> None:
        big.truncate(1_100_000)
        session.answer(event)

    server.scripts.append(Script(chunks=deque([cut])))
    async with uplinks() as uplink:
        with pytest.raises(SourceError, match="it was cut while it was being sent"):
            await uplink.send(big, "log.bin")
