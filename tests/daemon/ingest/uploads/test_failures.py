"""Disk and catalog fail: bytes that were not acknowledged are lost and can be sent again."""

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.telemetry.metrics import StorageFailure
from protocol.errors import ErrorCode
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import Bench
from tests.support.upload_samples import BROKEN, CONTENT, CRC, FULL
from tests.support.upload_streams import Ack, charged_bytes


@pytest.mark.parametrize(("error", "code"), [(FULL, ErrorCode.DISK_FULL), (BROKEN, ErrorCode.STORAGE_FAILED)])
@pytest.mark.parametrize("fails", ["write", "sync"])
async def test_a_failed_disk_costs_the_bytes_that_are_not_durable_and_they_can_be_sent_again(
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
    assert stream.acks == [Ack(10, (), charged_bytes(10))]
    while storage.writes:
        storage.write_next()
    await turns()
    while storage.syncs:
        storage.sync_next()
        await turns()
    assert [lease.holders for lease in leases] == [0, 0]
    assert not held.live.is_live(upload.id)
    held.assert_at_rest()
    counted = StorageFailure.DISK_FULL if error is FULL else StorageFailure(fails)
    assert held.metrics.storage_failures[counted] >= 1

    storage.holds_writes = storage.holds_syncs = False
    again, second = await held.open()
    assert (again.id, again.next_expected_byte, again.beyond()) == (upload.id, 10, [])
    held.send(again, 10, CONTENT[10:])
    held.uploads.finish(again, 100, CRC)
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
    bench.uploads.finish(again, 100, CRC)
    await until(lambda: second.completed is not None)


async def test_a_failed_completion_is_not_answered_with_finished(bench: Bench) -> None:
    bench.catalog.gates["complete"].failures.append(CatalogFailed("no completion"))
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT)
    bench.uploads.finish(upload, 100)
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.STORAGE_FAILED
    again, second = await bench.open()
    assert again.next_expected_byte in {0, 100}
    bench.send(again, 0, CONTENT)
    bench.uploads.finish(again, 100)
    await until(lambda: second.completed is not None)


async def test_a_failure_after_the_stream_is_gone_is_logged(held: Bench) -> None:
    upload, stream = await held.open()
    lease = held.send(upload, 0, CONTENT)
    held.uploads.detach(upload, stream)
    assert held.live.is_live(upload.id)
    held.storage.write_next(BROKEN)
    assert (stream.heard, lease.holders) == ([], 0)
    assert held.log.at("warning") == ["upload lost"]
    assert not held.live.is_live(upload.id)
