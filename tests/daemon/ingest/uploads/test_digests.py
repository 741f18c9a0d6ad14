"""Digests: what has another than was given is rejected, and its bytes are kept; long ones are announced."""

import hashlib
from dataclasses import replace

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import State
from daemon.ingest import uploads as uploads_module
from daemon.telemetry.metrics import StorageFailure
from protocol.constants import UploadState
from protocol.errors import ErrorCode
from tests.support.catalog_samples import REQUEST
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import Bench
from tests.support.upload_samples import BROKEN, CONTENT, CRC, SHA256, UNSIZED, completed_unanswered, state


@pytest.mark.parametrize("at_open", [True, False])
async def test_right_digests_complete_the_upload(bench: Bench, at_open: bool) -> None:
    request = replace(REQUEST, crc32c_expected=CRC, sha256_expected=SHA256) if at_open else REQUEST
    upload, stream = await bench.open(request)
    bench.send(upload, 0, CONTENT)
    crc, sha = (None, None) if at_open else (CRC, SHA256)
    bench.uploads.finish(upload, 100, crc, sha)
    await until(lambda: stream.completed is not None)
    assert stream.completed is not None
    assert (stream.completed.crc32c, stream.completed.sha256) == (CRC, SHA256)
    await turns()
    bench.assert_at_rest()


@pytest.mark.parametrize("digest", ["crc32c", "sha256"])
@pytest.mark.parametrize("given", ["at_open", "at_finish", "both"])
async def test_a_wrong_digest_rejects_the_upload(bench: Bench, digest: str, given: str) -> None:
    wrong_crc, wrong_sha = CRC ^ 1, hashlib.sha256(b"other").digest()
    request = REQUEST
    crc: int | None = None
    sha: bytes | None = None
    if given in {"at_open", "both"}:
        wrong = {"crc32c_expected": wrong_crc} if digest == "crc32c" else {"sha256_expected": wrong_sha}
        request = replace(REQUEST, **wrong)
    if given == "at_finish":
        crc, sha = (wrong_crc, None) if digest == "crc32c" else (None, wrong_sha)
    elif given == "both":
        crc, sha = (CRC, None) if digest == "crc32c" else (None, SHA256)
    upload, stream = await bench.open(request)
    bench.send(upload, 0, CONTENT)
    bench.uploads.finish(upload, 100, crc, sha)
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.DIGEST_MISMATCH
    assert await state(bench) is State.REJECTED
    assert bench.metrics.ended[UploadState.REJECTED] == 1
    await turns()
    bench.assert_at_rest()
    assert bench.storage.removed == [], "the bytes are kept for inspection"
    _, second = await bench.open()
    assert not second.is_over


async def test_a_cycle_under_way_does_not_complete_bytes_with_a_wrong_digest(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    held.uploads.finish(upload, 100, CRC ^ 1)
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.DIGEST_MISMATCH
    assert held.catalog.gates["complete"].asked == 0
    assert await state(held) is State.REJECTED


async def test_a_second_finish_with_a_wrong_digest_rejects_what_the_first_asked_for(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, 100, CRC)
    await turns()
    held.uploads.finish(upload, 100, CRC ^ 1)
    held.uploads.finish(upload, 100, CRC)
    held.storage.sync_next()
    held.storage.write_next()
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.DIGEST_MISMATCH
    assert await state(held) is State.REJECTED


async def test_a_wrong_digest_that_comes_when_the_upload_is_complete_changes_nothing(held: Bench) -> None:
    upload, stream, gate = await completed_unanswered(held)
    held.uploads.finish(upload, 100, CRC ^ 1)
    await turns()
    gate.after.set()
    await until(lambda: stream.is_over)
    assert stream.completed is not None
    assert await state(held) is State.COMPLETE
    assert held.metrics.ended[UploadState.REJECTED] == 0


@pytest.mark.parametrize(("disk_full", "code"), [(True, ErrorCode.DISK_FULL), (False, ErrorCode.STORAGE_FAILED)])
async def test_a_rejection_that_cannot_be_recorded_is_a_failure(bench: Bench, disk_full: bool, code: ErrorCode) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT)
    bench.catalog.gates["end"].failures.append(CatalogFailed("no end", disk_full=disk_full))
    bench.uploads.finish(upload, 100, CRC ^ 1)
    await until(lambda: stream.error is not None)
    assert stream.error is code
    await turns()
    bench.assert_at_rest()
    assert await state(bench) is State.RECEIVING


async def test_a_digest_that_takes_long_is_announced(held: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, stream = await held.open()
    monkeypatch.setattr(held.digester, "remaining_s", lambda _: uploads_module.VERIFYING_FROM_S + 1)
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, 100, sha256=SHA256)
    held.uploads.finish(upload, 100, sha256=SHA256)
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
    bench.uploads.finish(upload, 50, sha256=hashlib.sha256(CONTENT[:50]).digest())
    await until(lambda: gate.asked == 1)
    again, second = await bench.open(UNSIZED)
    gate.before.set()
    bench.send(again, 50, CONTENT[50:])
    bench.uploads.finish(again, 100, sha256=SHA256)
    await until(lambda: second.is_over)
    assert second.completed is not None
    assert (second.completed.size, second.completed.sha256) == (100, SHA256)


async def test_a_later_finish_with_another_sha256_is_a_mismatch(bench: Bench) -> None:
    upload, stream = await bench.open(replace(REQUEST, sha256_expected=SHA256))
    bench.send(upload, 0, CONTENT)
    await until(lambda: upload.sha256 is not None)
    bench.uploads.finish(upload, 100, sha256=hashlib.sha256(b"other").digest())
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.DIGEST_MISMATCH


async def test_bytes_that_come_in_order_are_never_read_back(bench: Bench) -> None:
    bench.storage.read_error = BROKEN
    upload, stream = await bench.open(replace(REQUEST, sha256_expected=SHA256))
    for start in range(0, 100, 10):
        bench.send(upload, start, CONTENT[start : start + 10])
    bench.uploads.finish(upload, 100)
    await until(lambda: stream.is_over)
    assert stream.heard[-1] == "finished"
    assert await state(bench) is State.COMPLETE
    bench.assert_at_rest()


async def test_bytes_that_cannot_be_read_back_are_a_failure(bench: Bench) -> None:
    bench.storage.read_error = BROKEN
    upload, stream = await bench.open(replace(REQUEST, sha256_expected=SHA256))
    bench.send(upload, 50, CONTENT[50:])
    bench.send(upload, 0, CONTENT[:50])
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.STORAGE_FAILED
    assert bench.metrics.storage_failures[StorageFailure.READ] == 1
    await turns()
    bench.assert_at_rest()


async def test_the_digest_of_an_upload_that_is_over_is_ignored(bench: Bench) -> None:
    upload, stream = await bench.open(replace(REQUEST, sha256_expected=SHA256))
    await bench.uploads.abort(upload)
    bench.uploads.digested(upload, SHA256)
    bench.uploads.unreadable(upload, BROKEN)
    await turns()
    assert stream.heard == ["aborted"]
    assert upload.sha256 is None


async def test_a_commit_of_bytes_that_were_lost_starts_no_digest(held: Bench) -> None:
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
    held.uploads.finish(again, 100)
    await until(lambda: second.completed is not None)
    assert second.completed is not None
    assert second.completed.sha256 == SHA256
