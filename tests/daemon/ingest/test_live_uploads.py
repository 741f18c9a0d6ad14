"""Who is live, and how an upload leaves: once its bytes are durable, with its stream, or before it."""

from protocol.errors import ErrorCode
from tests.support.loop_turns import turns
from tests.support.upload_bench import Bench
from tests.support.upload_samples import CONTENT


async def test_an_upload_is_live_while_a_stream_has_it_open(bench: Bench) -> None:
    upload, stream = await bench.open()
    assert bench.live.is_live(upload.id)
    assert bench.live.get(upload.id) is upload
    assert list(bench.live.values()) == [upload]
    bench.uploads.detach(upload, stream)
    assert not bench.live.is_live(upload.id)
    assert bench.live.get(upload.id) is None


async def test_an_upload_without_a_stream_is_live_until_its_bytes_are_durable(held: Bench) -> None:
    upload, _ = await held.open()
    held.send(upload, 0, CONTENT)
    held.live.end_stream(upload, ErrorCode.SIZE_INVALID, "another size")
    assert held.live.is_live(upload.id)
    held.live.forget_if_done(upload)
    assert held.live.is_live(upload.id)
    await turns()
    held.storage.write_next()
    held.storage.sync_next()
    await turns()
    assert not held.live.is_live(upload.id)
    held.assert_at_rest()


async def test_a_stream_ends_once_with_the_reason(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.live.end_stream(upload, ErrorCode.SIZE_INVALID, "another size")
    bench.live.fail(upload, ErrorCode.FENCED, "too late")
    assert (stream.heard, stream.error, stream.detail) == (["failed"], ErrorCode.SIZE_INVALID, "another size")
    assert upload.is_over


async def test_a_failed_upload_is_forgotten_whatever_is_under_way(held: Bench) -> None:
    upload, stream = await held.open()
    lease = held.send(upload, 0, CONTENT)
    held.live.fail(upload, ErrorCode.STORAGE_FAILED, "torn")
    assert stream.error is ErrorCode.STORAGE_FAILED
    assert not held.live.is_live(upload.id)
    await turns()
    held.storage.write_next()
    assert lease.holders == 0


async def test_a_forgotten_upload_does_not_take_its_successor_along(bench: Bench) -> None:
    upload, first = await bench.open()
    assert bench.live.forget(upload) is first
    again, _ = await bench.open()
    assert again.id == upload.id
    assert bench.live.forget(upload) is None
    assert bench.live.get(again.id) is again
