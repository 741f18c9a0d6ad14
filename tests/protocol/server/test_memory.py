"""Memory: none before authentication, all of it returned, and input waits when none is left. PROTOCOL.md §18."""

from protocol import codec
from protocol.constants import FrameType
from protocol.events import ChunksReceived
from protocol.state import ConnectionState
from tests.support.server_outcomes import LARGE, received
from tests.support.server_rig import Pool, ServerRig, chunk, with_stream


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
