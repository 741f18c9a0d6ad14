"""What is acknowledged, when, and how often: nothing before it is durable, and the first copy of a byte stands."""

from dataclasses import replace

from protocol.checksum import crc32c
from protocol.ranges import DigestedRange, Span
from tests.support.catalog_samples import REQUEST
from tests.support.loop_turns import turns, until
from tests.support.upload_bench import Bench
from tests.support.upload_samples import CONTENT
from tests.support.upload_streams import Ack, Run, charged_bytes


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
    assert stream.acks == [Ack(30, (), charged_bytes(30))]
    assert held.storage.content(upload.id) == CONTENT[:30]
    held.assert_at_rest(upload)


async def test_ranges_beyond_n_are_acknowledged_and_n_jumps_over_them(bench: Bench) -> None:
    upload, stream = await bench.open()
    for start, end in ((20, 30), (50, 60), (0, 20)):
        bench.send(upload, start, CONTENT[start:end])
        await until(lambda: bench.committer.pending_bytes == 0)
    assert stream.acks == [
        Ack(0, (Span(20, 30),), charged_bytes(10)),
        Ack(0, (Span(20, 30), Span(50, 60)), charged_bytes(10)),
        Ack(30, (Span(50, 60),), charged_bytes(20)),
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
    assert stream.acks == [Ack(10, (), charged_bytes(10)), Ack(50, (), charged_bytes(10, 10, 10, 10))]


async def test_chunks_without_a_lease_are_taken_as_well(bench: Bench) -> None:
    upload, stream = await bench.open()
    bench.uploads.receive(upload, Run(0, (CONTENT[:10],)), None)
    bench.uploads.receive(upload, Run(0, (CONTENT[:5],)), None)
    await until(lambda: stream.answered_bytes == charged_bytes(10, 5))
    assert stream.acknowledged_byte == 10


async def test_progress_of_many_uploads_is_one_transaction(held: Bench) -> None:
    opened = [await held.open(replace(REQUEST, name=f"file-{number}")) for number in range(5)]
    for upload, _ in opened:
        held.send(upload, 0, CONTENT[:10])
    await turns()
    held.storage.sync_next()
    await until(lambda: all(stream.acks for _, stream in opened))
    assert held.catalog.gates["commit"].asked == 1


async def test_durable_bytes_that_come_again_are_acknowledged_at_once(held: Bench) -> None:
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:30])
    await turns()
    held.storage.sync_next()
    held.storage.write_next()
    await until(lambda: bool(stream.acks))
    lease = held.send(upload, 5, b"x" * 10)
    assert stream.acks[1:] == [Ack(30, (), charged_bytes(10))]
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
    assert stream.acks == [Ack(30, (), charged_bytes(30, 30))]
    assert held.storage.content(upload.id) == CONTENT[:30], "the first copy stands"


async def test_an_ack_answers_duplicates_of_what_it_covers_that_came_after_its_cycle_was_cut(held: Bench) -> None:
    """A device counts them until then: to answer them later would let it exceed the window unawares."""
    upload, stream = await held.open()
    held.send(upload, 0, CONTENT[:30])
    await until(lambda: bool(held.storage.syncs))
    held.send(upload, 0, CONTENT[:10])
    held.send(upload, 10, CONTENT[10:20])
    held.storage.write_next()
    held.storage.sync_next()
    await until(lambda: bool(stream.acks))
    assert stream.acks == [Ack(30, (), charged_bytes(30, 10, 10))]
    await turns()
    held.storage.sync_next()
    await turns()
    assert stream.answered_bytes == charged_bytes(30, 10, 10)


async def test_the_first_copy_of_overlapping_bytes_stands(bench: Bench) -> None:
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
    assert stream.answered_bytes == charged_bytes(10, 10, 40, 8)
    assert bench.storage.content(upload.id) == CONTENT[:45]
    assert upload.durable == (DigestedRange(0, 45, crc32c(CONTENT[:45])),)
    assert bench.metrics.duplicate_bytes == 20 + 3
