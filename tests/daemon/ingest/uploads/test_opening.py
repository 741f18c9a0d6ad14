"""OPEN: create, resume, replace, and why none of them is possible."""

import asyncio
from dataclasses import replace

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Outcome, State
from daemon.ingest.admission import Refusal
from daemon.telemetry.metrics import OpenOutcome
from protocol.constants import UploadState
from protocol.errors import ErrorCode
from tests.support.catalog_samples import REPLACE, REQUEST, RESUME_ONLY
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import Bench
from tests.support.upload_samples import CONTENT, UNSIZED, complete, state
from tests.support.upload_streams import Stream


async def test_every_outcome_of_open_is_counted_and_refusals_have_their_code(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT[:10])
    await until(lambda: bool(stream.acks))
    assert await bench.refusal(replace(REQUEST, size=99)) is ErrorCode.CONTENT_CHANGED
    assert await bench.refusal(replace(REQUEST, name="other", disposition=RESUME_ONLY)) is ErrorCode.NOT_FOUND
    await bench.open()
    await bench.ends.end(upload.id, State.DELETED)
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
    assert not bench.live.is_live(2)
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


async def test_a_complete_file_stays_until_its_replacement_is_complete(bench: Bench) -> None:
    old_id = await complete(bench)
    upload, stream = await bench.open(replace(REQUEST, disposition=REPLACE, size=10))
    assert upload.id != old_id
    bench.send(upload, 0, CONTENT[:5])
    await until(lambda: stream.acknowledged_byte == 5)
    assert (await state(bench, old_id), bench.storage.content(old_id)) == (State.COMPLETE, CONTENT)
    bench.send(upload, 5, CONTENT[5:10])
    bench.uploads.finish(upload, 10)
    await until(lambda: bench.storage.removed == [old_id])
    assert stream.completed is not None
    assert await state(bench, old_id) is State.DELETED
    assert +bench.metrics.ended == {UploadState.COMPLETE: 2, UploadState.DELETED: 1}
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
    assert not held.live.is_live(upload.id)
    assert (await state(held, upload.id), second.heard) == (State.ABORTED, [])
    assert +held.metrics.ended == {UploadState.ABORTED: 1}
    (line,) = [each for each in held.log.lines if each["event"] == "upload ended"]
    assert (line["upload"], line["state"], line["detail"]) == (f"{upload.id:016x}", "aborted", "replaced")
