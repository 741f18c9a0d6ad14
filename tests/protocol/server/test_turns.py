"""How much input a connection may use before it is the turn of the others. PROTOCOL.md §18."""

import pytest

from protocol import codec, frames
from protocol.chunks import GATHER_FRAMES_MAX
from protocol.constants import FrameType
from protocol.errors import ErrorCode
from protocol.events import ConnectionFailed
from protocol.server import TURN_COST
from tests.support.server_rig import ServerRig, chunk, corrupt, frame, open_stream, with_stream

BEYOND = 7


def receive(rig: ServerRig, data: bytes) -> list[object]:
    """Receive all of `data` at once and return the events of one turn."""
    rig.connection.get_buffer()[: len(data)] = data
    return list(rig.connection.received(len(data), rig.now))


def next_turn(rig: ServerRig) -> list[object]:
    assert rig.connection.has_more
    rig.pool.poison()
    return list(rig.connection.resume(rig.now))


def test_input_beyond_a_turn_waits_in_order_for_the_next() -> None:
    rig = with_stream()
    receive(rig, b"".join(codec.encode(frames.Ping(at)) for at in range(2 * TURN_COST + BEYOND)))
    turns = [range(TURN_COST), range(TURN_COST, 2 * TURN_COST), range(2 * TURN_COST, 2 * TURN_COST + BEYOND)]
    for turn in turns:
        assert rig.sent() == [(0, frames.Pong(at)) for at in turn]
        if turn is not turns[-1]:
            next_turn(rig)
    assert not rig.connection.has_more


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(frame(FrameType.PING, bytes(4)), id="pings"),
        pytest.param(frame(0xEF), id="frames that are skipped"),
        pytest.param(chunk(1, 5, b"x"), id="the same chunk"),
        pytest.param(chunk(1, 5, b"x") + chunk(1, 3, b"x"), id="chunks out of order"),
        pytest.param(chunk(1, 5, b"x") + chunk(2, 5, b"x"), id="streams that take turns"),
        pytest.param(chunk(9, 5, b"x"), id="a stream that ended"),
    ],
)
def test_every_frame_counts(raw: bytes) -> None:
    rig = with_stream()
    open_stream(rig, 2)
    open_stream(rig, 9)
    rig.connection.fail_stream(9, ErrorCode.FENCED, "over")
    receive(rig, raw * (TURN_COST + 1))
    assert rig.connection.has_more


def test_chunks_that_are_gathered_count_as_one() -> None:
    rig = with_stream()
    raw = b"".join(chunk(1, at, b"x") for at in range(2 * GATHER_FRAMES_MAX))
    receive(rig, raw)
    assert not rig.connection.has_more


def test_a_failure_discards_waiting_input() -> None:
    rig = with_stream()
    receive(rig, corrupt(1, 0, b"x") * TURN_COST + frame(0x7F) * 2)
    failed = next_turn(rig)
    assert isinstance(failed[-1], ConnectionFailed)
    assert not rig.connection.has_more
