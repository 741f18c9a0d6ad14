"""Ends other than completion: abort by the device; deletion, expiry and keeping from outside."""

import asyncio

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import State
from daemon.telemetry.metrics import StorageFailure
from protocol.constants import UploadState
from protocol.errors import ErrorCode
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import Bench
from tests.support.upload_samples import BROKEN, CONTENT, completed_unanswered, state


async def test_abort_deletes_the_bytes_and_is_answered(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT[:10])
    await until(lambda: bool(stream.acks))
    await bench.ends.abort(upload)
    assert stream.aborted_id == upload.id
    assert bench.storage.removed == [upload.id]
    assert await state(bench) is State.ABORTED
    assert bench.metrics.ended[UploadState.ABORTED] == 1
    bench.assert_at_rest()


async def test_bytes_that_arrive_after_abort_are_not_written(bench: Bench) -> None:
    upload, stream = await bench.open()
    end = bench.catalog.gates["end"]
    end.after.clear()
    aborting = asyncio.ensure_future(bench.ends.abort(upload))
    await until(lambda: end.asked == 1)
    lease = bench.send(upload, 0, CONTENT[:10])
    bench.uploads.finish(upload, 10)
    end.after.set()
    await aborting
    await turns()
    assert (stream.heard, lease.holders) == (["aborted"], 0)
    assert bench.storage.write_count == 0
    bench.assert_at_rest()


async def test_the_abort_of_a_complete_upload_is_answered_with_finished(held: Bench) -> None:
    upload, stream, gate = await completed_unanswered(held)
    await held.ends.abort(upload)
    gate.after.set()
    await turns()
    assert stream.completed is not None
    assert await state(held) is State.COMPLETE
    assert held.storage.removed == []


async def test_an_abort_does_not_end_an_upload_that_a_later_stream_has(bench: Bench) -> None:
    upload, stream = await bench.open()
    end = bench.catalog.gates["end"]
    end.before.clear()
    aborting = asyncio.ensure_future(bench.ends.abort(upload))
    await until(lambda: end.asked == 1)
    again, second = await bench.open()
    end.before.set()
    await aborting
    assert stream.error is ErrorCode.FENCED
    bench.send(again, 0, CONTENT)
    bench.uploads.finish(again, 100)
    await until(lambda: second.completed is not None)


async def test_an_abort_that_the_catalog_does_not_record_is_raised(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.catalog.gates["end"].failures.append(CatalogFailed("no end"))
    with pytest.raises(CatalogFailed):
        await bench.ends.abort(upload)
    assert stream.heard == []
    assert not bench.live.is_live(upload.id)
    again, _ = await bench.open()
    assert again.id == upload.id


@pytest.mark.parametrize(
    ("ending", "code", "counted"),
    [
        (State.DELETED, ErrorCode.GONE, UploadState.DELETED),
        (State.EXPIRED, ErrorCode.EXPIRED, UploadState.EXPIRED),
    ],
)
async def test_an_end_from_outside_ends_the_stream(
    held: Bench, ending: State, code: ErrorCode, counted: UploadState
) -> None:
    upload, stream = await held.open()
    lease = held.send(upload, 0, CONTENT)
    await turns()
    ended = await held.ends.end(upload.id, ending)
    assert ended is not None
    assert ended.state is ending
    assert stream.error is code
    assert +held.metrics.ended == {counted: 1}
    held.storage.write_next()
    held.storage.sync_next()
    await turns()
    assert (stream.heard, lease.holders) == (["failed"], 0)
    assert (await state(held)) is ending
    held.assert_at_rest()
    assert await held.ends.end(upload.id, State.REJECTED) is None


async def test_an_end_between_sync_and_commit_is_not_undone(held: Bench) -> None:
    commit = held.catalog.gates["commit"]
    commit.before.clear()
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    await until(lambda: commit.asked == 1)
    await held.ends.end(upload.id, State.DELETED)
    commit.before.set()
    await turns()
    assert stream.heard == ["failed"]
    assert await state(held) is State.DELETED
    held.assert_at_rest()


async def test_a_deletion_that_cannot_remove_the_bytes_is_reported(bench: Bench) -> None:
    bench.storage.remove_error = BROKEN
    upload, stream = await bench.open()
    await bench.ends.abort(upload)
    assert stream.aborted_id == upload.id
    assert bench.log.at("warning") == ["bytes not deleted"]
    assert bench.metrics.storage_failures[StorageFailure.DELETE] == 1
