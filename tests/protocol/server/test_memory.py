"""Memory: none before authentication, all of it returned, and input waits when none is left. PROTOCOL.md §18."""

from dataclasses import replace

import pytest

from protocol import codec, frames
from protocol.constants import CHUNK_OVERHEAD_BYTES, NACKS_PER_RANGE_MAX, OFFSET_MAX, Disposition, Feature, FrameType
from protocol.errors import ErrorCode
from protocol.events import ChunkRefused, ChunksReceived, StreamFailed
from protocol.frame_buffer import PATIENCE_S
from protocol.state import ConnectionState
from tests.support.server_outcomes import LARGE, failure, received
from tests.support.server_rig import (
    LIMITS,
    TIMERS,
    Pool,
    Refusal,
    ServerRig,
    chunk,
    open_stream,
    opened_of,
    welcomed,
    with_stream,
)


def test_the_handshake_receives_at_most_its_largest_frame_and_borrows_nothing() -> None:
    rig = ServerRig()
    assert len(rig.connection.get_buffer()) == 8192
    rig.feed(codec.PREFIX.pack(FrameType.HELLO, 0, 0, 8184) + bytes(5000))
    assert len(rig.connection.get_buffer()) <= 8192
    rig.feed(codec.PREFIX.pack(FrameType.CHUNK, 0, 1, 2**31))
    assert rig.pool.lent_max == 0


def test_after_a_refusal_no_memory_is_borrowed_for_the_frame_under_way() -> None:
    rig = ServerRig()
    rig.feed(codec.PREFIX.pack(FrameType.HELLO, 0, 0, 2**32 - 1))
    rig.feed(bytes(100_000))
    assert rig.pool.lent_max == 0


def test_large_chunks_are_reported_without_a_copy_and_their_memory_goes_back() -> None:
    rig = with_stream(Pool(leases_max=1))
    rig.feed(chunk(1, 0, LARGE))
    raw = chunk(1, len(LARGE), LARGE) + chunk(1, 2 * len(LARGE), LARGE)
    rig.connection.get_buffer()[: len(raw)] = raw
    (event,) = rig.connection.received(len(raw), rig.now)
    assert isinstance(event, ChunksReceived)
    assert event.data == (LARGE, LARGE)
    assert event.lease is not None
    rig.connection.close()
    assert rig.pool.lent == 1, "the event still holds it"
    assert event.data == (LARGE, LARGE)
    event.lease.release()
    assert rig.pool.lent == 0


def test_input_waits_until_memory_can_be_borrowed() -> None:
    rig = with_stream(Pool(leases_max=0))
    assert rig.feed(chunk(1, 0, LARGE), (8000, 8000)) == []
    assert rig.connection.is_starved
    assert rig.resume() == []
    assert rig.connection.is_starved
    assert rig.connection.check_time(rig.now + 500) == [], "the device is not to blame for the silence"
    rig.pool.leases_max = 1
    assert rig.resume() == [received(1, 0, LARGE)]
    assert rig.pool.lent == 0


def test_close_returns_the_memory_and_accepts_no_more_input() -> None:
    rig = with_stream()
    rig.feed(chunk(1, 0, LARGE)[:20_000])
    assert rig.connection.has_lease
    assert rig.pool.lent == 1
    rig.connection.close()
    assert not rig.connection.has_lease
    assert rig.pool.lent == 0
    assert rig.connection.state is ConnectionState.CLOSING
    assert rig.resume() == []


def test_a_device_that_waits_for_memory_hears_from_the_server_within_the_reading_limit() -> None:
    rig = with_stream(Pool(leases_max=0))
    rig.feed(chunk(1, 0, LARGE), (8000, 8000))
    rig.connection.check_time(rig.now)
    rig.connection.check_time(rig.now + TIMERS.rate_window_s - 1)
    assert rig.sent() == []
    for turn in (1, 2):
        rig.connection.check_time(rig.now + turn * TIMERS.rate_window_s)
        ((_, ping),) = rig.sent()
        assert isinstance(ping, frames.Ping)


def test_without_authority_a_device_that_waits_for_memory_hears_nothing() -> None:
    rig = with_stream(Pool(leases_max=0))
    rig.feed(chunk(1, 0, LARGE), (8000, 8000))
    rig.connection.expire()
    for turn in (0, 1, 2):
        rig.connection.check_time(rig.now + turn * TIMERS.rate_window_s)
    assert rig.sent() == []


# Memory that is taken back in the middle of a chunk. PROTOCOL.md §9


def drop(rig: ServerRig) -> None:
    """Take the memory of the chunk under way back, as the pool does when others wait."""
    buffer = rig.connection._reader.buffer
    rig.connection.check_time(rig.now)
    rig.now += PATIENCE_S * 64
    rig.connection.check_time(rig.now)
    assert buffer.is_slow
    buffer.drop()


PATIENT = replace(LIMITS, timers=replace(TIMERS, rate_min_bytes_per_s=0, idle_timeout_s=1e9, keepalive_s=1e9))


@pytest.fixture
def rig() -> ServerRig:
    return with_stream(limits=PATIENT)


@pytest.mark.parametrize("split", [1, 1000, len(LARGE)])
@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
def test_a_dropped_chunk_is_asked_for_again_once_it_has_ended(rig: ServerRig, kind: FrameType, split: int) -> None:
    raw = chunk(1, 5, LARGE, kind)
    rig.feed(raw[:10_000])
    drop(rig)
    assert rig.pool.lent == 0
    rest = raw[10_000:] + chunk(1, 0, b"after")
    behind = len(chunk(1, 0, b"after")) + 1
    assert rig.feed(rest[:-behind], [split] * (len(rest) // split)) == []
    assert rig.sent() == []
    assert rig.feed(rest[-behind:], [1] * behind) == [
        ChunkRefused(1, ErrorCode.CHUNK_DROPPED),
        received(1, 0, b"after"),
    ]
    code = ErrorCode.CHUNK_DROPPED
    assert rig.sent() == [(1, frames.Nack(code, 5, len(LARGE) + 4, 0, code.summary))]
    assert rig.connection.streams.unacknowledged_bytes == len(b"after") + CHUNK_OVERHEAD_BYTES


def test_a_chunk_that_is_dropped_again_and_again_does_not_end_its_stream(rig: ServerRig) -> None:
    raw = chunk(1, 0, LARGE)
    for _ in range(2 * NACKS_PER_RANGE_MAX):
        rig.feed(raw[:10_000])
        drop(rig)
        assert rig.feed(raw[10_000:]) == [ChunkRefused(1, ErrorCode.CHUNK_DROPPED)]
    assert rig.feed(raw) == [received(1, 0, LARGE)]


def test_a_dropped_chunk_that_lies_is_treated_as_any_other(rig: ServerRig) -> None:
    for wrong, code in ((7, ErrorCode.CHUNK_INVALID), (OFFSET_MAX, ErrorCode.CHUNK_INVALID)):
        raw = chunk(1, 0, LARGE, wrong=Refusal(end_byte=wrong))
        rig.feed(raw[:10_000])
        drop(rig)
        (failed,) = rig.feed(raw[10_000:])
        assert isinstance(failed, StreamFailed)
        assert failed.code is code
        rig = with_stream(limits=PATIENT)


def test_a_dropped_chunk_beyond_the_declared_size_ends_its_stream(rig: ServerRig) -> None:
    open_stream(rig, 2, size=len(LARGE) - 1)
    raw = chunk(2, 0, LARGE)
    rig.feed(raw[:10_000])
    drop(rig)
    (failed,) = rig.feed(raw[10_000:])
    assert isinstance(failed, StreamFailed)
    assert failed.code is ErrorCode.CHUNK_BEYOND_END


def test_a_dropped_chunk_of_a_form_that_is_not_in_force_ends_the_connection() -> None:
    rig = welcomed(limits=PATIENT, features=Feature(0))
    open_stream(rig, 1)
    raw = chunk(1, 0, LARGE, FrameType.CHUNK_CRC32C)
    rig.feed(raw[:10_000])
    drop(rig)
    assert failure(rig.feed(raw[10_000:])) is ErrorCode.FRAME_UNEXPECTED


def test_a_dropped_chunk_of_a_stream_that_has_ended_is_discarded(rig: ServerRig) -> None:
    raw = chunk(1, 0, LARGE)
    rig.feed(raw[:10_000])
    drop(rig)
    rig.connection.aborted(1, 42)
    rig.sent()
    assert rig.feed(raw[10_000:]) == []
    assert rig.sent() == []


def test_a_dropped_chunk_waits_for_the_answer_to_its_open(rig: ServerRig) -> None:
    raw = chunk(2, 0, LARGE)
    rig.feed(codec.encode(frames.Open(Disposition.RESUME_OR_CREATE, len(LARGE), "second"), 2) + raw[:10_000])
    drop(rig)
    assert not any(isinstance(event, ChunkRefused) for event in rig.feed(raw[10_000:] + chunk(1, 0, b"behind")))
    rig.connection.opened(2, opened_of(), len(LARGE))
    rig.connection.answered()
    assert rig.resume() == [
        ChunkRefused(2, ErrorCode.CHUNK_DROPPED),
        received(1, 0, b"behind"),
    ]


def test_a_frame_that_is_never_lent_memory_is_never_dropped(rig: ServerRig) -> None:
    rig.feed(chunk(1, 0, LARGE))
    raw = chunk(1, len(LARGE), bytes(8000))
    rig.connection.get_buffer()[:5000] = raw[:5000]
    rig.connection.received(5000, rig.now)
    for _ in range(3):
        rig.now += PATIENCE_S
        rig.connection.check_time(rig.now)
        assert not rig.connection._reader.buffer.is_slow
    assert rig.feed(raw[5000:]) == [received(1, len(LARGE), bytes(8000))]
