"""Uploads from OPEN to their end: what is promised to a stream, when, and what becomes of it when something fails."""

import asyncio
import hashlib
from dataclasses import replace

import pytest

from daemon import uploads as uploads_module
from daemon.admission import Refusal
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Outcome, State
from daemon.metrics import OpenOutcome, StorageFailure
from protocol.checksum import crc32c
from protocol.constants import UploadState
from protocol.errors import ErrorCode
from protocol.ranges import DigestedRange, Span
from tests.daemon.catalog.samples import DEVICE, REPLACE, REQUEST, RESUME_ONLY, TENANT
from tests.daemon.fakes_uploads import Ack, Bench, Nack, Stream, finish, run, turns, until
from tests.daemon.samples import BROKEN, CONTENT, CRC, FULL, SHA256, UNSIZED, complete, completed_unanswered, state

# What is acknowledged.


async def test_nothing_is_acknowledged_before_it_is_written_synced_and_recorded(held: Bench) -> None:
    commit = held.catalog.gates["commit"]
    commit.after.clear()
    upload, stream = await held.open()
    lease = held.send(upload, 0, CONTENT[:10], CONTENT[10:30])
    await turns()
    assert (stream.heard, lease.holders) == ([], 1)
    held.storage.write_next()
    await turns()
    assert (stream.heard, lease.holders) == ([], 0), "the memory is given back as soon as it is written"
    held.storage.sync_next()
    await turns()
    assert commit.asked == 1
    assert stream.heard == []
    commit.after.set()
    await until(lambda: bool(stream.heard))
    assert stream.acks == [Ack(30, (), 30)]
    assert held.storage.content(upload.id) == CONTENT[:30]
    held.assert_at_rest(upload)


async def test_ranges_beyond_n_are_told_and_n_jumps_over_them(bench: Bench) -> None:
    upload, stream = await bench.open()
    for start, end in ((20, 30), (50, 60), (0, 20)):
        bench.send(upload, start, CONTENT[start:end])
        await until(lambda: bench.committer.pending_bytes == 0)
    assert stream.acks == [
        Ack(0, (Span(20, 30),), 10),
        Ack(0, (Span(20, 30), Span(50, 60)), 10),
        Ack(30, (Span(50, 60),), 20),
    ]


async def test_one_ack_answers_all_chunks_of_a_cycle(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:10])
    await turns()
    for start in range(10, 50, 10):
        held.send(upload, start, CONTENT[start : start + 10])
    for _ in range(2):
        await until(lambda: bool(held.storage.syncs))
        held.storage.sync_next()
    while held.storage.writes:
        held.storage.write_next()
    await until(lambda: held.committer.pending_bytes == 0)
    assert stream.acks == [Ack(10, (), 10), Ack(50, (), 40)]


async def test_chunks_without_a_lease_are_taken_as_well(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.uploads.receive(upload, run(0, (CONTENT[:10],)))
    bench.uploads.receive(upload, run(0, (CONTENT[:5],)))
    await until(lambda: stream.settled_bytes == 15)
    assert stream.acknowledged_byte == 10


async def test_progress_of_many_uploads_is_one_transaction(held: Bench) -> None:
    opened = [await held.open(replace(REQUEST, name=f"file-{number}")) for number in range(5)]
    for upload, _ in opened:
        held.send(upload, 0, CONTENT[:10])
    await turns()
    held.storage.sync_next()
    await until(lambda: all(stream.acks for _, stream in opened))
    assert held.catalog.gates["commit"].asked == 1


# Duplicates, overlaps.


async def test_durable_bytes_that_come_again_are_acknowledged_at_once(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:30])
    await turns()
    held.storage.sync_next()
    held.storage.write_next()
    await until(lambda: bool(stream.acks))
    lease = held.send(upload, 5, b"x" * 10)
    assert stream.acks[1:] == [Ack(30, (), 10)]
    assert lease.holders == 0
    assert held.metrics.duplicate_bytes == 10
    assert (held.storage.write_count, held.committer.pending_bytes) == (1, 0)


async def test_bytes_under_way_that_come_again_are_acknowledged_when_the_first_copy_is_durable(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:30])
    assert held.send(upload, 0, b"x" * 30).holders == 0
    await turns()
    assert stream.acks == []
    assert held.metrics.duplicate_bytes == 30
    held.storage.sync_next()
    held.storage.write_next()
    await until(lambda: bool(stream.acks))
    assert stream.acks == [Ack(30, (), 60)]
    assert held.storage.content(upload.id) == CONTENT[:30], "the first copy stands"


async def test_of_bytes_that_overlap_the_first_copy_stands(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.storage.holds_writes = True
    bench.send(upload, 10, CONTENT[10:20])
    bench.send(upload, 30, CONTENT[30:40])
    lease = bench.send(upload, 5, CONTENT[5:10] + b"x" * 5, b"x" * 5 + CONTENT[20:30], b"x" * 10 + CONTENT[40:45])
    assert lease.holders == 3, "each of its pieces is written by itself"
    while bench.storage.writes:
        bench.storage.write_next()
    assert lease.holders == 0
    bench.send(upload, 0, CONTENT[:8])
    bench.storage.write_next()
    await until(lambda: bench.committer.pending_bytes == 0)
    assert stream.acknowledged_byte == 45
    assert stream.settled_bytes == 10 + 10 + 40 + 8
    assert bench.storage.content(upload.id) == CONTENT[:45]
    assert upload.durable == (DigestedRange(0, 45, crc32c(CONTENT[:45])),)
    assert bench.metrics.duplicate_bytes == 20 + 3


# Failures of disk and catalog.


@pytest.mark.parametrize(("error", "code"), [(FULL, ErrorCode.DISK_FULL), (BROKEN, ErrorCode.STORAGE_FAILED)])
@pytest.mark.parametrize("fails", ["write", "sync"])
async def test_a_disk_that_fails_costs_what_is_not_durable_and_the_rest_is_sent_again(
    held: Bench, fails: str, error: OSError, code: ErrorCode
) -> None:
    storage = held.storage
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:10])
    await turns()
    storage.sync_next()
    storage.write_next()
    await until(lambda: bool(stream.acks))
    leases = [held.send(upload, 10, CONTENT[10:20]), held.send(upload, 30, CONTENT[30:40])]
    await turns()
    if fails == "write":
        storage.write_next(error)
    else:
        storage.sync_next(error)
    await until(lambda: stream.error is not None)
    assert stream.error is code
    assert stream.acks == [Ack(10, (), 10)]
    while storage.writes:
        storage.write_next()
    await turns()
    while storage.syncs:
        storage.sync_next()
        await turns()
    assert [lease.holders for lease in leases] == [0, 0]
    assert not held.uploads.is_live(upload.id)
    held.assert_at_rest()
    counted = StorageFailure.DISK_FULL if error is FULL else StorageFailure(fails)
    assert held.metrics.storage_failures[counted] >= 1

    storage.holds_writes = storage.holds_syncs = False
    again, second = await held.open()
    assert (again.id, again.next_expected_byte, again.beyond()) == (upload.id, 10, [])
    held.send(again, 10, CONTENT[10:])
    held.uploads.finish(again, finish(100, CRC))
    await until(lambda: second.completed is not None)
    assert storage.content(upload.id) == CONTENT


async def test_a_write_that_fails_while_its_sync_is_reported_first_is_not_acknowledged(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:10])
    await turns()
    held.storage.break_write(FULL)
    held.storage.sync_next()
    await until(lambda: stream.error is not None)
    held.storage.write_next()
    await turns()
    assert (stream.heard, stream.error) == (["failed"], ErrorCode.DISK_FULL)
    held.assert_at_rest()


@pytest.mark.parametrize("was_done", [False, True])
@pytest.mark.parametrize(("disk_full", "code"), [(True, ErrorCode.DISK_FULL), (False, ErrorCode.STORAGE_FAILED)])
async def test_a_commit_that_fails_is_not_acknowledged(
    bench: Bench, disk_full: bool, code: ErrorCode, was_done: bool
) -> None:
    gate = bench.catalog.gates["commit"]
    (gate.failures_after if was_done else gate.failures).append(CatalogFailed("no commit", disk_full=disk_full))
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT[:10])
    await until(lambda: stream.error is not None)
    assert (stream.heard, stream.error) == (["failed"], code)
    await turns()
    bench.assert_at_rest()
    again, second = await bench.open()
    assert again.next_expected_byte == (10 if was_done else 0)
    bench.send(again, again.next_expected_byte, CONTENT[again.next_expected_byte :])
    bench.uploads.finish(again, finish(100, CRC))
    await until(lambda: second.completed is not None)


async def test_a_completion_that_fails_is_not_told_as_one(bench: Bench) -> None:
    bench.catalog.gates["complete"].failures.append(CatalogFailed("no completion"))
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT)
    bench.uploads.finish(upload, finish(100))
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.STORAGE_FAILED
    again, second = await bench.open()
    assert again.next_expected_byte in {0, 100}
    bench.send(again, 0, CONTENT)
    bench.uploads.finish(again, finish(100))
    await until(lambda: second.completed is not None)


async def test_what_fails_after_the_stream_is_gone_is_logged_and_forgotten(held: Bench) -> None:
    upload, stream = await held.open()
    lease = held.send(upload, 0, CONTENT)
    held.uploads.detach(upload, stream)
    assert held.uploads.is_live(upload.id)
    held.storage.write_next(BROKEN)
    assert (stream.heard, lease.holders) == ([], 0)
    assert held.log.at("warning") == ["upload lost"]
    assert not held.uploads.is_live(upload.id)


# Takeover.


async def test_a_later_open_takes_over_at_once_and_fences_the_earlier_stream(held: Bench) -> None:
    upload, first = await held.open()
    held.send(upload, 0, CONTENT[:10])
    await turns()
    held.storage.sync_next()
    held.storage.write_next()
    await until(lambda: bool(first.acks))
    held.send(upload, 10, CONTENT[10:40])
    await turns()
    again, second = await held.open()
    assert again is upload
    assert (again.next_expected_byte, again.epoch) == (10, 2)
    assert first.error is ErrorCode.FENCED
    assert held.metrics.takeovers == 1
    held.storage.write_next()
    held.storage.sync_next()
    await turns()
    assert second.acks == []
    drained = asyncio.ensure_future(held.committer.drained())
    await until(lambda: bool(held.storage.syncs))
    held.storage.sync_next()
    await drained
    assert first.acks == [Ack(10, (), 10)], "the cycle under way is not the earlier stream's any more"
    assert second.acks == [Ack(40, (), 0)], "its bytes are recorded for the later one"
    record = await held.catalog.get(upload.id)
    assert record is not None
    assert (record.epoch, record.next_expected_byte) == (2, 40)
    await turns()
    held.assert_at_rest(upload)


async def test_a_takeover_during_the_commit_does_not_lose_the_bytes(held: Bench) -> None:
    commit = held.catalog.gates["commit"]
    upload, first = await held.open()
    held.send(upload, 0, CONTENT[:40])
    await turns()
    commit.after.clear()
    held.storage.sync_next()
    held.storage.write_next()
    await until(lambda: commit.asked == 1)
    again, second = await held.open()
    assert again.next_expected_byte == 0
    commit.after.set()
    await turns()
    assert first.heard == ["failed"]
    held.send(again, 0, CONTENT[:40])
    await until(lambda: bool(second.acks))
    assert second.acks == [Ack(40, (), 40)], "durable by now, so acknowledged again at once"


async def test_what_the_device_sends_again_after_a_takeover_is_acknowledged_with_the_first_copy(held: Bench) -> None:
    upload, first = await held.open()
    held.send(upload, 0, CONTENT[:40])
    again, second = await held.open()
    held.send(again, 0, CONTENT[:60])
    while held.storage.writes:
        held.storage.write_next()
    await turns()
    while held.storage.syncs:
        held.storage.sync_next()
        await turns()
    assert second.acknowledged_byte == 60
    assert second.settled_bytes == 60
    assert first.heard == ["failed"]


async def test_an_upload_that_somebody_else_took_over_is_fenced_here(bench: Bench) -> None:
    upload, stream = await bench.open()
    await bench.catalog.open(replace(REQUEST, upload_id=77))
    bench.send(upload, 0, CONTENT)
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.FENCED
    assert (await bench.catalog.usage(TENANT, DEVICE)) == 100
    await turns()
    bench.assert_at_rest()


async def test_a_commit_of_bytes_that_were_lost_meanwhile_starts_no_digest(held: Bench) -> None:
    commit = held.catalog.gates["commit"]
    upload, stream = await held.open(replace(REQUEST, sha256_expected=SHA256))
    held.send(upload, 0, CONTENT[:10])
    await turns()
    commit.after.clear()
    held.storage.sync_next()
    held.storage.write_next()
    await until(lambda: commit.asked == 1)
    held.send(upload, 10, CONTENT[10:20])
    held.storage.write_next(BROKEN)
    assert stream.error is ErrorCode.STORAGE_FAILED
    held.storage.holds_writes = held.storage.holds_syncs = False
    again, second = await held.open(replace(REQUEST, sha256_expected=SHA256))
    commit.after.set()
    bench_left_s = held.digester.remaining_s(again)
    await turns()
    assert held.digester.remaining_s(again) <= bench_left_s
    held.send(again, 10, CONTENT[10:])
    held.uploads.finish(again, finish(100))
    await until(lambda: second.completed is not None)
    assert second.completed is not None
    assert second.completed.sha256 == SHA256


# The end.


@pytest.mark.parametrize("request_", [REQUEST, UNSIZED])
async def test_finish_completes_once_everything_is_durable(held: Bench, request_: object) -> None:
    upload, stream = await held.open(REQUEST if request_ is REQUEST else UNSIZED)
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, finish(100))
    held.uploads.finish(upload, finish(100, CRC))
    await turns()
    assert stream.heard == []
    held.storage.write_next()
    while held.storage.syncs:
        held.storage.sync_next()
        await turns()
    assert stream.completed is not None
    done = stream.completed
    assert (done.state, done.size, done.crc32c, done.sha256) == (State.COMPLETE, 100, CRC, None)
    assert stream.heard.count("finished") == 1
    assert held.storage.content(upload.id) == CONTENT
    assert held.metrics.ended[UploadState.COMPLETE] == 1
    held.assert_at_rest()


async def test_finish_of_what_is_durable_already_needs_no_more_bytes(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT)
    await until(lambda: stream.acknowledged_byte == 100)
    bench.uploads.detach(upload, stream)
    assert not bench.uploads.is_live(upload.id)
    again, second = await bench.open()
    bench.uploads.finish(again, finish(100, CRC))
    await until(lambda: second.completed is not None)
    bench.assert_at_rest()


async def test_an_empty_file_is_a_file(bench: Bench) -> None:
    upload, stream = await bench.open(replace(REQUEST, size=0, sha256_expected=hashlib.sha256(b"").digest()))
    bench.uploads.finish(upload, finish(0, crc32c=0))
    await until(lambda: stream.completed is not None)
    assert stream.completed is not None
    assert (stream.completed.size, stream.completed.crc32c) == (0, 0)
    bench.assert_at_rest()


async def test_finish_before_all_bytes_names_the_first_that_are_missing(bench: Bench) -> None:
    upload, stream = await bench.open(UNSIZED)
    for start, end in ((0, 10), (40, 50)):
        bench.send(upload, start, CONTENT[start:end])
    bench.uploads.finish(upload, finish(100))
    bench.send(upload, 10, CONTENT[10:40])
    bench.uploads.finish(upload, finish(100))
    assert stream.nacks == [
        Nack(Span(10, 40), ErrorCode.INCOMPLETE, 0),
        Nack(Span(50, 100), ErrorCode.INCOMPLETE, 0),
    ]
    bench.send(upload, 50, CONTENT[50:])
    await until(lambda: stream.acknowledged_byte == 100)
    assert stream.completed is None, "FINISH comes again"
    bench.uploads.finish(upload, finish(100))
    await until(lambda: stream.completed is not None)


async def test_a_size_below_what_has_arrived_ends_the_stream_and_not_the_upload(bench: Bench) -> None:
    upload, stream = await bench.open(UNSIZED)
    bench.send(upload, 0, CONTENT[:50])
    bench.uploads.finish(upload, finish(49))
    assert stream.error is ErrorCode.SIZE_INVALID
    bench.uploads.finish(upload, finish(50))
    await until(lambda: not bench.uploads.is_live(upload.id))
    again, _ = await bench.open(UNSIZED)
    assert again.next_expected_byte == 50


@pytest.mark.parametrize("at_open", [True, False])
async def test_digests_that_fit_complete_the_upload(bench: Bench, at_open: bool) -> None:
    request = replace(REQUEST, crc32c_expected=CRC, sha256_expected=SHA256) if at_open else REQUEST
    upload, stream = await bench.open(request)
    bench.send(upload, 0, CONTENT)
    bench.uploads.finish(upload, finish(100) if at_open else finish(100, CRC, SHA256))
    await until(lambda: stream.completed is not None)
    assert stream.completed is not None
    assert (stream.completed.crc32c, stream.completed.sha256) == (CRC, SHA256)
    await turns()
    bench.assert_at_rest()


@pytest.mark.parametrize("digest", ["crc32c", "sha256"])
@pytest.mark.parametrize("told", ["at_open", "at_finish", "both"])
async def test_a_digest_that_does_not_fit_rejects_the_upload(bench: Bench, digest: str, told: str) -> None:
    wrong_crc, wrong_sha = CRC ^ 1, hashlib.sha256(b"other").digest()
    request, end = REQUEST, finish(100)
    if told in {"at_open", "both"}:
        wrong = {"crc32c_expected": wrong_crc} if digest == "crc32c" else {"sha256_expected": wrong_sha}
        request = replace(REQUEST, **wrong)
    if told == "at_finish":
        end = finish(100, crc32c=wrong_crc) if digest == "crc32c" else finish(100, sha256=wrong_sha)
    elif told == "both":
        end = finish(100, CRC) if digest == "crc32c" else finish(100, sha256=SHA256)
    upload, stream = await bench.open(request)
    bench.send(upload, 0, CONTENT)
    bench.uploads.finish(upload, end)
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.DIGEST_MISMATCH
    assert await state(bench) is State.REJECTED
    assert bench.metrics.ended[UploadState.REJECTED] == 1
    await turns()
    bench.assert_at_rest()
    assert bench.storage.removed == [], "the bytes are kept for inspection"
    _, anew = await bench.open()
    assert not anew.is_over


async def test_bytes_with_a_wrong_digest_never_become_complete_though_their_cycle_is_about_to(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    held.uploads.finish(upload, finish(100, CRC ^ 1))
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.DIGEST_MISMATCH
    assert held.catalog.gates["complete"].asked == 0
    assert await state(held) is State.REJECTED


async def test_a_second_finish_with_a_wrong_digest_rejects_what_the_first_asked_for(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, finish(100, CRC))
    await turns()
    held.uploads.finish(upload, finish(100, CRC ^ 1))
    held.uploads.finish(upload, finish(100, CRC))
    held.storage.sync_next()
    held.storage.write_next()
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.DIGEST_MISMATCH
    assert await state(held) is State.REJECTED


async def test_a_wrong_digest_that_comes_when_the_upload_is_complete_changes_nothing(held: Bench) -> None:
    upload, stream, gate = await completed_unanswered(held)
    held.uploads.finish(upload, finish(100, CRC ^ 1))
    await turns()
    gate.after.set()
    await until(lambda: stream.is_over)
    assert stream.completed is not None
    assert await state(held) is State.COMPLETE
    assert held.metrics.ended[UploadState.REJECTED] == 0


@pytest.mark.parametrize(("disk_full", "code"), [(True, ErrorCode.DISK_FULL), (False, ErrorCode.STORAGE_FAILED)])
async def test_a_rejection_that_cannot_be_recorded_is_told_as_a_failure(
    bench: Bench, disk_full: bool, code: ErrorCode
) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT)
    bench.catalog.gates["end"].failures.append(CatalogFailed("no end", disk_full=disk_full))
    bench.uploads.finish(upload, finish(100, CRC ^ 1))
    await until(lambda: stream.error is not None)
    assert stream.error is code
    await turns()
    bench.assert_at_rest()
    assert await state(bench) is State.RECEIVING


async def test_a_digest_that_takes_long_is_announced(held: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, stream = await held.open()
    monkeypatch.setattr(held.digester, "remaining_s", lambda _: uploads_module.VERIFYING_FROM_S + 1)
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, finish(100, sha256=SHA256))
    held.uploads.finish(upload, finish(100, sha256=SHA256))
    assert stream.waits_ms == [1500, 1500], "FINISH may be repeated"
    held.storage.write_next()
    while stream.completed is None:
        held.storage.sync_next()
        await turns()
    assert stream.completed.sha256 == SHA256


async def test_a_digest_of_another_size_is_not_that_of_the_upload(bench: Bench) -> None:
    upload, _ = await bench.open(UNSIZED)
    gate = bench.catalog.gates["complete"]
    gate.before.clear()
    bench.send(upload, 0, CONTENT[:50])
    bench.uploads.finish(upload, finish(50, sha256=hashlib.sha256(CONTENT[:50]).digest()))
    await until(lambda: gate.asked == 1)
    again, second = await bench.open(UNSIZED)
    gate.before.set()
    bench.send(again, 50, CONTENT[50:])
    bench.uploads.finish(again, finish(100, sha256=SHA256))
    await until(lambda: second.is_over)
    assert second.completed is not None
    assert (second.completed.size, second.completed.sha256) == (100, SHA256)


async def test_a_later_finish_with_another_sha256_is_a_mismatch(bench: Bench) -> None:
    upload, stream = await bench.open(replace(REQUEST, sha256_expected=SHA256))
    bench.send(upload, 0, CONTENT)
    await until(lambda: upload.sha256 is not None)
    bench.uploads.finish(upload, finish(100, sha256=hashlib.sha256(b"other").digest()))
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.DIGEST_MISMATCH


async def test_bytes_that_cannot_be_read_back_are_a_failure(bench: Bench) -> None:
    bench.storage.read_error = BROKEN
    upload, stream = await bench.open(replace(REQUEST, sha256_expected=SHA256))
    bench.send(upload, 0, CONTENT)
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.STORAGE_FAILED
    assert bench.metrics.storage_failures[StorageFailure.READ] == 1
    await turns()
    bench.assert_at_rest()


async def test_a_digest_of_what_is_over_is_of_no_interest(bench: Bench) -> None:
    upload, stream = await bench.open(replace(REQUEST, sha256_expected=SHA256))
    await bench.uploads.abort(upload)
    bench.uploads.digested(upload, SHA256)
    bench.uploads.unreadable(upload, BROKEN)
    await turns()
    assert stream.heard == ["aborted"]
    assert upload.sha256 is None


# Other ends.


async def test_abort_deletes_the_bytes_and_is_answered(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT[:10])
    await until(lambda: bool(stream.acks))
    await bench.uploads.abort(upload)
    assert stream.aborted_id == upload.id
    assert bench.storage.removed == [upload.id]
    assert await state(bench) is State.ABORTED
    assert bench.metrics.ended[UploadState.ABORTED] == 1
    bench.assert_at_rest()


async def test_what_arrives_after_abort_is_not_written(bench: Bench) -> None:
    upload, stream = await bench.open()
    end = bench.catalog.gates["end"]
    end.after.clear()
    aborting = asyncio.ensure_future(bench.uploads.abort(upload))
    await until(lambda: end.asked == 1)
    lease = bench.send(upload, 0, CONTENT[:10])
    bench.uploads.finish(upload, finish(10))
    end.after.set()
    await aborting
    await turns()
    assert (stream.heard, lease.holders) == (["aborted"], 0)
    assert bench.storage.write_count == 0
    bench.assert_at_rest()


async def test_an_upload_that_is_complete_already_cannot_be_aborted_and_that_is_told(held: Bench) -> None:
    upload, stream, gate = await completed_unanswered(held)
    await held.uploads.abort(upload)
    gate.after.set()
    await turns()
    assert stream.completed is not None
    assert await state(held) is State.COMPLETE
    assert held.storage.removed == []


async def test_an_abort_of_what_a_later_stream_has_is_not_done(bench: Bench) -> None:
    upload, stream = await bench.open()
    end = bench.catalog.gates["end"]
    end.before.clear()
    aborting = asyncio.ensure_future(bench.uploads.abort(upload))
    await until(lambda: end.asked == 1)
    again, second = await bench.open()
    end.before.set()
    await aborting
    assert stream.error is ErrorCode.FENCED
    bench.send(again, 0, CONTENT)
    bench.uploads.finish(again, finish(100))
    await until(lambda: second.completed is not None)


async def test_an_abort_that_the_catalog_does_not_take_is_raised(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.catalog.gates["end"].failures.append(CatalogFailed("no end"))
    with pytest.raises(CatalogFailed):
        await bench.uploads.abort(upload)
    assert stream.heard == []
    assert not bench.uploads.is_live(upload.id)
    again, _ = await bench.open()
    assert again.id == upload.id


@pytest.mark.parametrize(
    ("ending", "code", "counted"),
    [
        (State.DELETED, ErrorCode.GONE, UploadState.DELETED),
        (State.EXPIRED, ErrorCode.EXPIRED, UploadState.EXPIRED),
        (State.PARTIAL, ErrorCode.EXPIRED, None),
    ],
)
async def test_an_end_from_outside_is_told_to_the_stream(
    held: Bench, ending: State, code: ErrorCode, counted: UploadState | None
) -> None:
    upload, stream = await held.open()
    lease = held.send(upload, 0, CONTENT)
    await turns()
    ended = await held.uploads.end(upload.id, ending)
    assert ended is not None
    assert ended.state is ending
    assert stream.error is code
    assert sum(held.metrics.ended.values()) == (counted is not None)
    held.storage.write_next()
    held.storage.sync_next()
    await turns()
    assert (stream.heard, lease.holders) == (["failed"], 0)
    assert (await state(held)) is ending
    held.assert_at_rest()
    assert await held.uploads.end(upload.id, State.REJECTED) is None


async def test_an_end_between_sync_and_commit_is_not_undone(held: Bench) -> None:
    commit = held.catalog.gates["commit"]
    commit.before.clear()
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    await until(lambda: commit.asked == 1)
    await held.uploads.end(upload.id, State.DELETED)
    commit.before.set()
    await turns()
    assert stream.heard == ["failed"]
    assert await state(held) is State.DELETED
    held.assert_at_rest()


async def test_a_deletion_that_cannot_remove_the_bytes_is_reported(bench: Bench) -> None:
    bench.storage.remove_error = BROKEN
    upload, stream = await bench.open()
    await bench.uploads.abort(upload)
    assert stream.aborted_id == upload.id
    assert bench.log.at("warning") == ["bytes not deleted"]
    assert bench.metrics.storage_failures[StorageFailure.DELETE] == 1


# Replace.


async def test_a_complete_file_stays_until_its_replacement_is_complete(bench: Bench) -> None:
    old_id = await complete(bench)
    upload, stream = await bench.open(replace(REQUEST, disposition=REPLACE, size=10))
    assert upload.id != old_id
    bench.send(upload, 0, CONTENT[:5])
    await until(lambda: stream.acknowledged_byte == 5)
    assert (await state(bench, old_id), bench.storage.content(old_id)) == (State.COMPLETE, CONTENT)
    bench.send(upload, 5, CONTENT[5:10])
    bench.uploads.finish(upload, finish(10))
    await until(lambda: bench.storage.removed == [old_id])
    assert stream.completed is not None
    assert await state(bench, old_id) is State.DELETED
    await turns()
    bench.assert_at_rest()


async def test_an_upload_under_way_that_is_replaced_is_fenced_and_removed(held: Bench) -> None:
    upload, stream = await held.open()
    lease = held.send(upload, 0, CONTENT)
    await turns()
    newer, second = await held.open(replace(REQUEST, disposition=REPLACE))
    assert newer.id != upload.id
    assert stream.error is ErrorCode.FENCED
    held.storage.write_next()
    held.storage.sync_next()
    await turns()
    assert (lease.holders, held.storage.removed) == (0, [upload.id])
    assert not held.uploads.is_live(upload.id)
    assert (await state(held, upload.id), second.heard) == (State.ABORTED, [])


# OPEN.


async def test_every_outcome_of_open_is_counted_and_refusals_have_their_code(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT[:10])
    await until(lambda: bool(stream.acks))
    assert await bench.refusal(replace(REQUEST, size=99)) is ErrorCode.CONTENT_CHANGED
    assert await bench.refusal(replace(REQUEST, name="other", disposition=RESUME_ONLY)) is ErrorCode.NOT_FOUND
    await bench.open()
    await bench.uploads.end(upload.id, State.DELETED)
    assert await bench.refusal() is ErrorCode.GONE
    bench.clock.pass_s(7200)
    await bench.open()
    assert {each: count for each, count in bench.metrics.opens.items() if count} == {
        OpenOutcome.CREATED: 2,
        OpenOutcome.RESUMED: 1,
        OpenOutcome.REFUSED: 3,
    }
    assert bench.metrics.resumes == 1
    assert bench.metrics.takeovers == 1


async def test_a_complete_file_is_answered_without_an_upload(bench: Bench) -> None:
    await complete(bench)
    answer = await bench.answer(REQUEST, Stream())
    assert not isinstance(answer, Refusal)
    result, upload = answer
    assert (result.outcome, upload) == (Outcome.COMPLETE, None)
    assert bench.metrics.opens[OpenOutcome.COMPLETE] == 1


async def test_a_catalog_that_fails_at_open_leaves_nothing_behind(bench: Bench) -> None:
    bench.catalog.gates["open"].failures.append(CatalogFailed("no open"))
    with pytest.raises(CatalogFailed):
        await bench.open()
    bench.set_policy(quota_bytes_per_device=1000)
    bench.catalog.gates["usage"].failures.append(CatalogFailed("no usage"))
    with pytest.raises(CatalogFailed):
        await bench.open(UNSIZED)
    assert not bench.uploads.is_live(2)
    upload, stream = await bench.open(UNSIZED)
    assert upload.listener is stream


async def test_two_opens_at_once_leave_the_later_one_with_the_upload(bench: Bench) -> None:
    bench.set_policy(quota_bytes_per_device=1000)
    first, second = Stream(), Stream()
    usage = bench.catalog.gates["usage"]
    usage.before.clear()
    opening = [asyncio.ensure_future(bench.answer(UNSIZED, each)) for each in (first, second)]
    await until(lambda: usage.asked == 2)
    usage.before.set()
    await asyncio.gather(*opening)
    assert first.error is ErrorCode.FENCED
    assert second.heard == []


# Who leaves.


async def test_bytes_of_a_stream_that_is_gone_still_become_durable_and_then_nothing_is_kept(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:40])
    held.uploads.detach(upload, stream)
    assert held.uploads.is_live(upload.id)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    await until(lambda: not held.uploads.is_live(upload.id))
    assert stream.heard == []
    held.assert_at_rest()
    again, _ = await held.open()
    assert again is not upload
    assert again.next_expected_byte == 40


async def test_a_finish_whose_stream_is_gone_does_not_complete(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, finish(100))
    held.uploads.detach(upload, stream)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    await until(lambda: not held.uploads.is_live(upload.id))
    assert await state(held) is State.RECEIVING
    held.uploads.finish(upload, finish(100))
    assert await state(held) is State.RECEIVING


async def test_a_stream_that_was_fenced_takes_nothing_with_it(bench: Bench) -> None:
    upload, first = await bench.open()
    again, second = await bench.open()
    bench.uploads.detach(upload, first)
    assert again.listener is second
    bench.uploads.detach(again, second)
    assert not bench.uploads.is_live(upload.id)
    bench.assert_at_rest()
