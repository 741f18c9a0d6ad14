"""Receive buffers, shared or leased: no input is lost, and no memory is kept longer than needed."""

import pytest

from protocol import codec
from protocol.constants import FrameType
from protocol.frame_buffer import (
    BULK_FRAME_BYTES,
    BULK_FRAMES,
    CARRY_BYTES_MAX,
    LOSSES_COUNTED_MAX,
    PATIENCE_S,
    FrameBuffer,
)
from tests.support.server_rig import POISON, Pool

UNLIMITED = 2**64 - 1
LARGE = 64 * 1024


def put(buffer: FrameBuffer, data: bytes) -> None:
    view = buffer.writable(UNLIMITED)
    view[: len(data)] = data
    buffer.received(len(data))


def quick(pool: Pool) -> FrameBuffer:
    """A buffer whose last frame was large and came at once."""
    buffer = FrameBuffer(pool)
    put(buffer, bytes(BULK_FRAME_BYTES))
    buffer.begin = buffer.end
    buffer.save(BULK_FRAME_BYTES)
    return buffer


def held(buffer: FrameBuffer) -> bytes:
    return bytes(buffer.view[buffer.begin : buffer.end])


def test_small_input_uses_the_shared_buffer_and_leaves_nothing_in_it() -> None:
    pool = Pool()
    buffer = FrameBuffer(pool)
    put(buffer, b"frame")
    assert buffer.view is pool.shared
    buffer.begin = buffer.end
    buffer.save(5)
    assert pool.lent == 0
    put(buffer, b"next")
    assert held(buffer) == b"next"


def test_the_offered_buffer_is_within_the_limit() -> None:
    buffer = FrameBuffer(Pool())
    assert len(buffer.writable(100)) == 100
    put(buffer, b"part")
    buffer.save(8)
    assert len(buffer.writable(100)) == 100


def test_a_partial_small_frame_survives_what_other_connections_receive() -> None:
    pool = Pool()
    buffer = FrameBuffer(pool)
    put(buffer, b"consumed|fra")
    buffer.begin += 9
    buffer.save(CARRY_BYTES_MAX)
    pool.poison()
    put(buffer, b"me")
    assert held(buffer) == b"frame"
    assert pool.lent == 0
    assert not buffer.starved


def test_a_partial_frame_survives_an_empty_read() -> None:
    pool = Pool()
    buffer = FrameBuffer(pool)
    put(buffer, b"fra")
    buffer.save(CARRY_BYTES_MAX)
    buffer.writable(UNLIMITED)
    pool.poison()
    put(buffer, b"me")
    assert held(buffer) == b"frame"


def test_a_lease_goes_back_when_no_input_comes() -> None:
    pool = Pool()
    buffer = quick(pool)
    buffer.writable(UNLIMITED)
    assert pool.lent == 1
    buffer.look(0)
    assert pool.lent == 0
    put(buffer, b"frame")
    buffer.look(1)
    assert held(buffer) == b"frame"
    assert pool.lent == 1


def test_a_partial_large_frame_continues_in_a_lease() -> None:
    pool = Pool()
    buffer = FrameBuffer(pool)
    large = b"large" * 2000
    put(buffer, large)
    buffer.save(LARGE)
    pool.poison()
    assert pool.lent == 1
    put(buffer, b"frame")
    assert held(buffer) == large + b"frame"
    buffer.save(LARGE)
    assert held(buffer) == large + b"frame", "a frame that fits stays where it is"
    buffer.begin = buffer.end
    buffer.save(LARGE)
    assert pool.lent == 0


def test_consecutive_large_frames_are_received_into_leases() -> None:
    pool = Pool(lease_bytes=BULK_FRAME_BYTES * BULK_FRAMES + 100)
    buffer = quick(pool)
    view = buffer.writable(UNLIMITED)
    assert pool.lent == 1
    assert len(view) == BULK_FRAME_BYTES * BULK_FRAMES, "the buffer ends with a whole frame"
    buffer.close()
    assert pool.lent == 0


def test_small_frames_get_no_lease() -> None:
    pool = Pool()
    buffer = FrameBuffer(pool)
    buffer.save(BULK_FRAME_BYTES - 1)
    buffer.writable(UNLIMITED)
    assert pool.lent == 0


def test_without_a_free_lease_bulk_uses_the_shared_buffer() -> None:
    pool = Pool(leases_max=0)
    buffer = quick(pool)
    assert len(buffer.writable(UNLIMITED)) == len(pool.shared)


def test_the_limit_also_applies_to_leases() -> None:
    buffer = quick(Pool())
    assert len(buffer.writable(100)) == 100
    assert buffer.lease is not None


def test_a_frame_cut_off_at_the_end_of_a_lease_moves_to_the_front_of_another() -> None:
    pool = Pool(lease_bytes=LARGE + 100)
    buffer = quick(pool)
    put(buffer, b"a")
    buffer.save(LARGE)
    first = buffer.lease
    rest = buffer.writable(UNLIMITED)
    assert len(rest) == LARGE - 1, "up to the end of the frame"
    rest[:] = b"b" * len(rest)
    buffer.received(len(rest))
    buffer.begin += LARGE - 10
    buffer.save(LARGE)
    assert buffer.lease is not first
    assert pool.lent == 1
    assert held(buffer) == b"b" * 10
    put(buffer, b"c")
    assert held(buffer) == b"b" * 10 + b"c"


def test_a_small_remainder_is_carried_over_and_its_lease_goes_back() -> None:
    pool = Pool(lease_bytes=LARGE)
    buffer = quick(pool)
    put(buffer, b"a")
    buffer.save(LARGE)
    put(buffer, b"b" * (LARGE - 1))
    buffer.begin += LARGE - 5
    buffer.save(20)
    assert pool.lent == 0
    put(buffer, b"!")
    assert held(buffer) == b"bbbbb!"


def test_a_buffer_that_returns_the_only_lease_may_borrow_it_again() -> None:
    pool = Pool(leases_max=1, lease_bytes=LARGE)
    buffer = quick(pool)
    put(buffer, b"a")
    buffer.save(LARGE)
    put(buffer, b"b" * (LARGE - 1))
    buffer.begin += LARGE - 10_000
    buffer.save(LARGE)
    assert not buffer.starved, "no other buffer could ever wake it"
    assert held(buffer) == b"b" * 10_000


def test_a_large_frame_without_a_lease_waits_until_one_comes_back() -> None:
    pool = Pool(leases_max=0)
    buffer = FrameBuffer(pool)
    put(buffer, b"x" * CARRY_BYTES_MAX)
    buffer.save(LARGE)
    assert not buffer.starved
    put(buffer, b"y")
    buffer.save(LARGE)
    assert buffer.starved
    pool.poison()
    buffer.restore()
    assert held(buffer) == b"x" * CARRY_BYTES_MAX + b"y"
    buffer.save(LARGE)
    assert buffer.starved
    pool.leases_max = 1
    buffer.restore()
    buffer.save(LARGE)
    assert not buffer.starved
    assert held(buffer) == b"x" * CARRY_BYTES_MAX + b"y"


def test_viewing_leased_memory_twice_changes_nothing() -> None:
    buffer = FrameBuffer(Pool())
    put(buffer, b"large")
    buffer.save(LARGE)
    buffer.restore()
    assert held(buffer) == b"large"


def test_waiting_input_larger_than_any_lease_is_kept_whole() -> None:
    pool = Pool(lease_bytes=LARGE, shared_bytes=2 * LARGE)
    buffer = FrameBuffer(pool)
    put(buffer, b"z" * 2 * LARGE)
    buffer.save(2 * LARGE)
    assert pool.lent == 0
    buffer.restore()
    assert held(buffer) == b"z" * 2 * LARGE


def test_there_is_room_after_whole_frames_that_wait() -> None:
    buffer = FrameBuffer(Pool(lease_bytes=LARGE))
    put(buffer, bytes(60_000))
    buffer.save(20_000)
    assert len(buffer.writable(UNLIMITED)) == LARGE - 60_000


@pytest.mark.parametrize("frame_bytes", [20, LARGE])
def test_close_returns_all_memory(frame_bytes: int) -> None:
    pool = Pool()
    buffer = FrameBuffer(pool)
    put(buffer, b"part")
    buffer.save(frame_bytes)
    buffer.close()
    buffer.close()
    assert pool.lent == 0
    assert buffer.begin == buffer.end
    assert not buffer.starved


def test_other_memory_is_borrowed_from_the_same_pool() -> None:
    pool = Pool(leases_max=1)
    buffer = FrameBuffer(pool)
    lease = buffer.borrow(LARGE)
    assert lease is not None
    assert buffer.borrow(LARGE) is None
    lease.release()
    assert pool.lent == 0


def test_the_test_pool_poisons_returned_memory() -> None:
    pool = Pool()
    lease = pool.lease(10)
    assert lease is not None
    view = lease.view
    lease.release()
    assert view[0] == POISON


# A lease grows with what has arrived.

KIB = 1024
CLASSES = (20 * KIB, 68 * KIB, 260 * KIB, 516 * KIB, 1028 * KIB)
MIB = 1024 * KIB


def trickle(buffer: FrameBuffer, frame_bytes: int, until_bytes: int, step_bytes: int) -> None:
    """Let a frame arrive in small reads, up to `until_bytes` of it."""
    while (arrived := buffer.end - buffer.begin if buffer.lease else len(buffer._carry)) < until_bytes:
        put(buffer, bytes(min(step_bytes, until_bytes - arrived, len(buffer.writable(UNLIMITED)))))
        buffer.save(frame_bytes)


@pytest.mark.parametrize(
    ("arrived_bytes", "lent_bytes"),
    [(8 * KIB, 0), (8 * KIB + 1, 20 * KIB), (20 * KIB, 68 * KIB), (68 * KIB, 260 * KIB), (300 * KIB, 516 * KIB)],
)
def test_a_slow_frame_has_memory_for_little_more_than_has_arrived(arrived_bytes: int, lent_bytes: int) -> None:
    buffer = FrameBuffer(Pool(classes=CLASSES))
    trickle(buffer, MIB, arrived_bytes, 1000)
    assert (len(buffer.lease.view) if buffer.lease else 0) == lent_bytes


def test_a_frame_whose_first_read_brings_much_has_all_its_memory_at_once() -> None:
    buffer = FrameBuffer(Pool(classes=CLASSES))
    put(buffer, bytes(BULK_FRAME_BYTES))
    buffer.save(MIB)
    assert buffer.lease is not None
    assert len(buffer.lease.view) == 1028 * KIB


def test_a_frame_that_stops_gives_back_what_it_does_not_fill() -> None:
    pool = Pool(classes=CLASSES)
    buffer = quick(pool)
    put(buffer, bytes(10_000))
    buffer.save(MIB)
    assert buffer.lease is not None
    assert len(buffer.lease.view) == 260 * KIB, "as for the frames before"
    buffer.look(0)
    buffer.look(1)
    assert len(buffer.lease.view) == 20 * KIB
    assert bytes(buffer.view[buffer.begin : buffer.end]) == bytes(10_000)
    assert pool.lent == 1


def test_a_connection_in_the_middle_of_a_trickle_is_quick_no_longer() -> None:
    pool = Pool(classes=CLASSES)
    buffer = quick(pool)
    put(buffer, bytes(10_000))
    buffer.save(MIB)
    for now in range(3):
        buffer.look(now)
    trickle(buffer, 40_000, 40_000, 5000)
    buffer.begin = buffer.end
    buffer.save(40_000)
    assert len(buffer.writable(UNLIMITED)) == len(pool.shared), "no lease before the next frame has come"


def test_a_frame_that_cannot_grow_keeps_what_it_has_until_it_can() -> None:
    pool = Pool(leases_max=1, classes=CLASSES)
    buffer = FrameBuffer(pool)
    trickle(buffer, MIB, 20 * KIB - 1, 1000)
    pool.leases_max = 0
    put(buffer, b"x")
    buffer.save(MIB)
    assert buffer.starved
    assert pool.lent == 1, "a copy of its own would be memory that nobody counts"
    pool.leases_max = 1
    buffer.restore()
    buffer.save(MIB)
    assert not buffer.starved
    assert held(buffer) == bytes(20 * KIB - 1) + b"x"


def test_a_frame_cut_off_moves_to_the_front_of_its_own_lease_if_there_is_no_other() -> None:
    pool = Pool(lease_bytes=LARGE + 20_000)
    buffer = quick(pool)
    put(buffer, b"a")
    buffer.save(LARGE)
    first = buffer.lease
    rest = buffer.writable(UNLIMITED)
    rest[:] = b"b" * len(rest)
    buffer.received(len(rest))
    buffer.begin += LARGE - 10_000
    pool.leases_max = 0
    buffer.save(LARGE)
    assert buffer.lease is first
    assert not buffer.starved
    assert held(buffer) == b"b" * 10_000


# Memory that is taken back.


def slow(pool: Pool, losses: int = 0) -> FrameBuffer:
    """A buffer in the middle of a chunk of 64 KiB, of which 10,000 bytes have come."""
    buffer = FrameBuffer(pool)
    buffer._losses = losses
    put(buffer, codec.PREFIX.pack(FrameType.CHUNK, 0, 1, LARGE - 8) + bytes(9_992))
    buffer.save(LARGE)
    return buffer


@pytest.mark.parametrize("losses", [0, 1, LOSSES_COUNTED_MAX])
def test_a_frame_keeps_its_memory_for_a_while_and_for_longer_after_each_loss(losses: int) -> None:
    buffer = slow(Pool(), losses)
    patience_s = PATIENCE_S * 2**losses
    buffer.look(0)
    buffer.look(patience_s - 0.5)
    assert not buffer.is_slow
    buffer.look(patience_s)
    assert buffer.is_slow


def test_time_in_which_it_was_not_read_does_not_count() -> None:
    buffer = slow(Pool())
    buffer.look(0)
    buffer.paused(100)
    buffer.look(100)
    assert not buffer.is_slow


@pytest.mark.parametrize("split", [1, 7, LARGE, 2 * LARGE])
def test_the_rest_of_a_dropped_frame_is_discarded_and_what_follows_is_kept(split: int) -> None:
    pool = Pool(shared_bytes=4 * LARGE)
    buffer = slow(pool)
    buffer.drop()
    assert pool.lent == 0
    assert buffer.lost_header.startswith(codec.PREFIX.pack(FrameType.CHUNK, 0, 1, LARGE - 8))
    rest = bytes(LARGE - 10_000) + b"next"
    while rest:
        put(buffer, rest[:split])
        rest = rest[split:]
        buffer.save(LARGE)
        buffer.restore()
        assert pool.lent == 0
        pool.poison()
        if buffer.missing_bytes:
            assert held(buffer) == b""
        buffer.save(12)
    buffer.restore()
    assert (buffer.missing_bytes, held(buffer)) == (0, b"next")


def test_a_frame_that_came_whole_ends_the_count_of_losses() -> None:
    buffer = slow(Pool(), LOSSES_COUNTED_MAX)
    put(buffer, bytes(LARGE - 10_000))
    buffer.begin = buffer.end
    buffer.save(LARGE)
    assert buffer._losses == 0
