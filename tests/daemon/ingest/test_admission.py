"""Which bytes are let in: the largest file, room on the disk, a device's quota, gaps."""

from dataclasses import replace

from daemon.catalog.records import Outcome
from daemon.ingest.admission import Refusal
from daemon.telemetry.metrics import OpenOutcome
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.support.catalog_samples import REPLACE, REQUEST, RESUME_ONLY
from tests.support.loop_turns import until
from tests.support.upload_bench import Bench
from tests.support.upload_samples import CONTENT, UNSIZED, complete
from tests.support.upload_streams import Nack, Stream, charged_bytes


async def test_a_file_above_the_largest_size_is_refused_as_soon_as_that_is_known(bench: Bench) -> None:
    bench.set_policy(size_max_bytes=60)
    assert await bench.refusal() is ErrorCode.FILE_TOO_LARGE
    upload, stream = await bench.open(UNSIZED)
    bench.send(upload, 0, CONTENT[:60])
    await until(lambda: stream.acknowledged_byte == 60)
    lease = bench.send(upload, 60, CONTENT[60:61])
    assert (stream.error, lease.holders) == (ErrorCode.FILE_TOO_LARGE, 0)
    again, second = await bench.open(UNSIZED)
    bench.uploads.finish(again, 61)
    assert second.error is ErrorCode.FILE_TOO_LARGE
    third, last = await bench.open(UNSIZED)
    bench.uploads.finish(third, 60)
    await until(lambda: last.completed is not None)


async def test_a_file_that_the_disk_could_never_hold_is_refused_as_soon_as_that_is_known(bench: Bench) -> None:
    bench.disk.total_bytes = 1099
    bench.disk.free_bytes = 1050
    assert await bench.refusal() is ErrorCode.FILE_TOO_LARGE
    upload, stream = await bench.open(UNSIZED)
    bench.uploads.finish(upload, 100)
    assert stream.error is ErrorCode.FILE_TOO_LARGE
    sparse, second = await bench.open(UNSIZED)
    lease = bench.send(sparse, 99, b"x")
    assert (second.error, lease.holders) == (ErrorCode.FILE_TOO_LARGE, 0)
    bench.disk.total_bytes = 1100
    assert await bench.refusal() is ErrorCode.DISK_FULL, "it fits once others make room"


async def test_a_disk_that_was_never_measured_refuses_nothing_for_good(bench: Bench) -> None:
    bench.disk.total_bytes = bench.disk.free_bytes = 0
    assert await bench.refusal() is ErrorCode.DISK_FULL


async def test_a_floor_above_the_whole_disk_leaves_an_upload_of_unknown_size_waiting(bench: Bench) -> None:
    bench.disk.total_bytes = bench.disk.free_bytes = 500
    assert await bench.refusal(UNSIZED) is ErrorCode.DISK_FULL


async def test_a_disk_at_its_floor_takes_nothing_until_there_is_room(bench: Bench) -> None:
    bench.disk.free_bytes = 1099
    assert await bench.refusal() is ErrorCode.DISK_FULL
    bench.disk.free_bytes = 1100
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT[:10])
    assert bench.disk.free_bytes == 1090, "what is taken counts before it is measured"
    bench.disk.free_bytes = 1009
    lease = bench.send(upload, 10, CONTENT[10:20])
    assert (stream.error, lease.holders) == (ErrorCode.DISK_FULL, 0)
    assert bench.disk.free_bytes == 1009
    await until(lambda: not bench.live.is_live(upload.id))
    bench.disk.free_bytes = 1090
    again, second = await bench.open()
    assert again.next_expected_byte == 10
    bench.send(again, 10, CONTENT[10:])
    bench.uploads.finish(again, 100)
    await until(lambda: second.completed is not None)


async def test_bytes_that_are_there_already_need_no_room(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.send(upload, 0, CONTENT[:90])
    await until(lambda: stream.acknowledged_byte == 90)
    bench.disk.free_bytes = 1009
    assert await bench.refusal() is ErrorCode.DISK_FULL
    assert stream.error is None, "a refused OPEN fences nobody"
    bench.disk.free_bytes = 1010
    again, second = await bench.open()
    assert stream.error is ErrorCode.FENCED
    assert await bench.refusal(replace(REQUEST, disposition=REPLACE)) is ErrorCode.DISK_FULL
    bench.send(again, 90, CONTENT[90:])
    bench.uploads.finish(again, 100)
    await until(lambda: second.completed is not None)


async def test_a_full_disk_does_not_hide_that_the_file_is_complete(bench: Bench) -> None:
    await complete(bench)
    bench.disk.free_bytes = 0
    answer = await bench.answer(REQUEST, Stream())
    assert not isinstance(answer, Refusal)
    assert answer[0].outcome is Outcome.COMPLETE
    assert await bench.refusal(replace(REQUEST, name="other")) is ErrorCode.DISK_FULL
    assert bench.metrics.opens[OpenOutcome.REFUSED] == 1


async def test_a_quota_bounds_what_a_device_declares(bench: Bench) -> None:
    bench.set_policy(quota_bytes_per_device=150)
    await bench.open()
    assert await bench.refusal(replace(REQUEST, name="other", size=51)) is ErrorCode.QUOTA_EXCEEDED
    await bench.open(replace(REQUEST, name="other", size=50))


async def test_a_quota_bounds_what_a_device_sends_without_declaring_it(bench: Bench) -> None:
    bench.set_policy(quota_bytes_per_device=130)
    await bench.open()
    request = replace(UNSIZED, name="other")
    upload, stream = await bench.open(request)
    bench.send(upload, 0, CONTENT[:20])
    bench.send(upload, 0, CONTENT[:20])
    bench.send(upload, 20, CONTENT[20:30])
    lease = bench.send(upload, 30, CONTENT[30:31])
    assert (stream.error, lease.holders) == (ErrorCode.QUOTA_EXCEEDED, 0)
    await until(lambda: not bench.live.is_live(upload.id))
    bench.set_policy(quota_bytes_per_device=140)
    again, second = await bench.open(request)
    assert again.next_expected_byte == 30
    bench.send(again, 30, CONTENT[30:40])
    await until(lambda: second.acknowledged_byte == 40)
    assert second.error is None


async def test_uploads_of_unknown_size_share_what_is_left_of_a_quota(bench: Bench) -> None:
    bench.set_policy(quota_bytes_per_device=50)
    one, first = await bench.open(UNSIZED)
    other, second = await bench.open(replace(UNSIZED, name="other"))
    bench.send(one, 0, CONTENT[:30])
    lease = bench.send(other, 0, CONTENT[:30])
    assert (second.error, lease.holders) == (ErrorCode.QUOTA_EXCEEDED, 0)
    # What was refused was not counted.
    bench.send(one, 30, CONTENT[30:50])
    await until(lambda: first.acknowledged_byte == 50)


async def test_a_declared_size_takes_from_what_uploads_of_unknown_size_share(bench: Bench) -> None:
    bench.set_policy(quota_bytes_per_device=50)
    upload, stream = await bench.open(UNSIZED)
    declared, _ = await bench.open(replace(REQUEST, name="other", size=50))
    lease = bench.send(upload, 0, CONTENT[:1])
    assert (stream.error, lease.holders) == (ErrorCode.QUOTA_EXCEEDED, 0)
    bench.send(declared, 0, CONTENT[:50])
    await until(lambda: declared.next_expected_byte == 50)


async def test_the_uploads_of_a_device_are_limited_empty_ones_included(bench: Bench) -> None:
    bench.set_policy(uploads_max_per_device=2)
    for name in ("one", "two"):
        await bench.open(replace(REQUEST, name=name, size=0))
    assert await bench.refusal(replace(REQUEST, name="three", size=0)) is ErrorCode.QUOTA_EXCEEDED
    await bench.open(replace(REQUEST, name="two", size=0))
    await bench.open(replace(REQUEST, name="three", device="another", size=0))


async def test_the_uploads_that_a_device_begins_in_an_hour_are_limited(bench: Bench) -> None:
    bench.set_policy(uploads_per_hour_per_device=2)
    for name in ("one", "two"):
        await bench.open(replace(REQUEST, name=name))
    assert await bench.refusal(replace(REQUEST, name="three")) is ErrorCode.QUOTA_EXCEEDED
    await bench.open(replace(REQUEST, name="two"))
    await bench.open(replace(REQUEST, name="three", device="another"))
    bench.clock.pass_s(1800)
    await bench.open(replace(REQUEST, name="three"))
    assert await bench.refusal(replace(REQUEST, name="four")) is ErrorCode.QUOTA_EXCEEDED


async def test_a_size_that_is_declared_later_replaces_the_count_of_what_is_left(bench: Bench) -> None:
    bench.set_policy(quota_bytes_per_device=50)
    upload, stream = await bench.open(UNSIZED)
    bench.send(upload, 0, CONTENT[:40])
    await until(lambda: stream.acknowledged_byte == 40)
    bench.set_policy(quota_bytes_per_device=100)
    again, second = await bench.open()
    bench.send(again, 40, CONTENT[40:])
    bench.uploads.finish(again, 100)
    await until(lambda: second.is_over)
    assert second.completed is not None


async def test_a_chunk_that_would_leave_too_many_gaps_is_refused_by_itself(bench: Bench) -> None:
    upload, stream = await bench.open()
    for start in (10, 20, 30, 40):
        bench.send(upload, start, b"x")
    lease = bench.send(upload, 50, b"xyz")
    assert stream.nacks == [Nack(Span(50, 53), ErrorCode.TOO_MANY_GAPS, charged_bytes(3))]
    assert lease.holders == 0
    bench.send(upload, 0, bytes(10))
    bench.send(upload, 50, b"xyz")
    await until(lambda: bench.committer.pending_bytes == 0)
    assert len(stream.nacks) == 1
    assert stream.acks[-1].beyond == (Span(20, 21), Span(30, 31), Span(40, 41), Span(50, 53))


async def test_bytes_that_add_no_gap_are_taken_when_fewer_gaps_are_allowed_now(bench: Bench) -> None:
    upload, stream = await bench.open()
    for start in (10, 20, 30, 40):
        bench.send(upload, start, b"x")
    bench.set_policy(ranges_max=1)
    bench.send(upload, 0, bytes(5))
    bench.send(upload, 50, b"x")
    await until(lambda: bench.committer.pending_bytes == 0)
    assert stream.acknowledged_byte == 5
    assert stream.nacks == [Nack(Span(50, 51), ErrorCode.TOO_MANY_GAPS, charged_bytes(1))]


async def test_a_refusal_says_how_the_last_upload_ended(bench: Bench) -> None:
    upload, _ = await bench.open()
    await bench.uploads.abort(upload)
    answer = await bench.answer(replace(REQUEST, disposition=RESUME_ONLY), Stream())
    assert isinstance(answer, Refusal)
    assert "aborted" in answer.detail
