"""FINISH: complete once every byte is durable, and not before."""

import hashlib
from dataclasses import replace

import pytest

from daemon.catalog.records import State
from protocol.constants import UploadState
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.support.catalog_samples import REQUEST
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import Bench
from tests.support.upload_samples import CONTENT, CRC, UNSIZED, state
from tests.support.upload_streams import Nack


@pytest.mark.parametrize("request_", [REQUEST, UNSIZED])
async def test_finish_completes_once_everything_is_durable(held: Bench, request_: object) -> None:
    upload, stream = await held.open(REQUEST if request_ is REQUEST else UNSIZED)
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, 100)
    held.uploads.finish(upload, 100, CRC)
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


async def test_finish_of_durable_bytes_needs_no_more_bytes(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT)
    await until(lambda: stream.acknowledged_byte == 100)
    bench.uploads.detach(upload, stream)
    assert not bench.live.is_live(upload.id)
    again, second = await bench.open()
    bench.uploads.finish(again, 100, CRC)
    await until(lambda: second.completed is not None)
    bench.assert_at_rest()


async def test_an_empty_file_is_a_file(bench: Bench) -> None:
    upload, stream = await bench.open(replace(REQUEST, size=0, sha256_expected=hashlib.sha256(b"").digest()))
    bench.uploads.finish(upload, 0, crc32c=0)
    await until(lambda: stream.completed is not None)
    assert stream.completed is not None
    assert (stream.completed.size, stream.completed.crc32c) == (0, 0)
    bench.assert_at_rest()


async def test_finish_before_all_bytes_names_the_first_that_are_missing(bench: Bench) -> None:
    upload, stream = await bench.open(UNSIZED)
    for start, end in ((0, 10), (40, 50)):
        bench.send(upload, start, CONTENT[start:end])
    bench.uploads.finish(upload, 100)
    bench.send(upload, 10, CONTENT[10:40])
    bench.uploads.finish(upload, 100)
    assert stream.nacks == [
        Nack(Span(10, 40), ErrorCode.INCOMPLETE, 0),
        Nack(Span(50, 100), ErrorCode.INCOMPLETE, 0),
    ]
    bench.send(upload, 50, CONTENT[50:])
    await until(lambda: stream.acknowledged_byte == 100)
    assert stream.completed is None, "FINISH comes again"
    bench.uploads.finish(upload, 100)
    await until(lambda: stream.completed is not None)


async def test_a_size_below_the_bytes_that_arrived_ends_the_stream_and_not_the_upload(bench: Bench) -> None:
    upload, stream = await bench.open(UNSIZED)
    bench.send(upload, 0, CONTENT[:50])
    bench.uploads.finish(upload, 49)
    assert stream.error is ErrorCode.SIZE_INVALID
    bench.uploads.finish(upload, 50)
    await until(lambda: not bench.live.is_live(upload.id))
    again, _ = await bench.open(UNSIZED)
    assert again.next_expected_byte == 50


async def test_a_finish_whose_stream_is_gone_does_not_complete(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT)
    held.uploads.finish(upload, 100)
    held.uploads.detach(upload, stream)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    await until(lambda: not held.live.is_live(upload.id))
    assert await state(held) is State.RECEIVING
    held.uploads.finish(upload, 100)
    assert await state(held) is State.RECEIVING
