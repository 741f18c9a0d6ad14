"""A later OPEN fences the earlier stream. A stream that leaves takes no bytes with it."""

import asyncio
from dataclasses import replace

from protocol.errors import ErrorCode
from tests.support.catalog_samples import DEVICE, REQUEST, TENANT
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import Bench
from tests.support.upload_samples import CONTENT
from tests.support.upload_streams import Ack, charged_bytes


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
    assert first.acks == [Ack(10, (), charged_bytes(10))], "the cycle under way is not the earlier stream's any more"
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
    assert second.acks == [Ack(40, (), charged_bytes(40))], "durable by now, so acknowledged again at once"


async def test_bytes_sent_again_after_a_takeover_are_acknowledged_with_the_first_copy(held: Bench) -> None:
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
    assert second.answered_bytes == charged_bytes(60)
    assert first.heard == ["failed"]


async def test_an_upload_that_another_server_took_over_is_fenced_here(bench: Bench) -> None:
    upload, stream = await bench.open()
    await bench.catalog.open(replace(REQUEST, upload_id=77))
    bench.send(upload, 0, CONTENT)
    await until(lambda: stream.error is not None)
    assert stream.error is ErrorCode.FENCED
    assert (await bench.catalog.usage(TENANT, DEVICE)).held_bytes == 100
    await turns()
    bench.assert_at_rest()


async def test_bytes_of_a_stream_that_is_gone_still_become_durable(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:40])
    held.uploads.detach(upload, stream)
    assert held.live.is_live(upload.id)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    await until(lambda: not held.live.is_live(upload.id))
    assert stream.heard == []
    held.assert_at_rest()
    again, _ = await held.open()
    assert again is not upload
    assert again.next_expected_byte == 40


async def test_a_fenced_stream_that_leaves_changes_nothing(bench: Bench) -> None:
    upload, first = await bench.open()
    again, second = await bench.open()
    bench.uploads.detach(upload, first)
    assert again.listener is second
    bench.uploads.detach(again, second)
    assert not bench.live.is_live(upload.id)
    bench.assert_at_rest()
