"""Silence and slowness, and when the device is not to blame for them. PROTOCOL.md §12."""

import math

import pytest

from protocol import codec, frames
from protocol.constants import SIZE_UNKNOWN
from protocol.errors import ErrorCode
from protocol.state import ConnectionState
from tests.support.server_outcomes import LARGE, failure, received
from tests.support.server_rig import HELLO, ServerRig, chunk, open_frame, opened_of, welcomed, with_stream


def test_ping_gets_an_answer_and_pong_gets_none() -> None:
    rig = welcomed()
    assert rig.feed(codec.encode(frames.Ping(9)) + codec.encode(frames.Pong(8))) == []
    assert rig.sent() == [(0, frames.Pong(9))]


def test_a_silent_connection_is_pinged_and_then_closed() -> None:
    rig = welcomed()
    assert rig.connection.deadline == rig.now + 30
    assert rig.connection.check_time(rig.now + 29.9) == []
    assert rig.sent() == []
    assert rig.connection.check_time(rig.now + 30) == []
    assert rig.sent() == [(0, frames.Ping(1030))]
    assert failure(rig.connection.check_time(rig.now + 90)) is ErrorCode.IDLE_TIMEOUT
    assert rig.connection.check_time(rig.now + 200) == []
    assert rig.connection.deadline == math.inf


def test_a_device_in_the_middle_of_a_slow_chunk_hears_from_the_server() -> None:
    rig = with_stream()
    raw = chunk(1, 0, LARGE)
    pings = []
    for second in range(91):
        rig.feed(raw[second * 200 : (second + 1) * 200])
        assert rig.connection.check_time(rig.now) == []
        pings += [(second, frame) for _, frame in rig.sent()]
        rig.now += 1
    assert [second for second, _ in pings] == [30, 60, 90]
    assert all(isinstance(frame, frames.Ping) for _, frame in pings)


def test_sending_postpones_the_ping() -> None:
    rig = with_stream()
    rig.now += 20
    rig.feed(chunk(1, 0, b"data"))
    rig.connection.acknowledge(1, 4, [], 4)
    assert rig.connection.deadline == rig.now + 10
    rig.sent()
    assert rig.connection.deadline == rig.now + 30


def test_a_handshake_that_takes_too_long_is_refused() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(HELLO)[:-1])
    assert failure(rig.connection.check_time(rig.now + 10)) is ErrorCode.HANDSHAKE_TIMEOUT
    assert isinstance(rig.sent()[0][1], frames.Refused)


@pytest.mark.parametrize("raw", [chunk(1, 0, LARGE), open_frame(2, "x" * 200)], ids=["chunk", "control"])
def test_a_frame_at_one_byte_a_second_is_too_slow(raw: bytes) -> None:
    rig = with_stream()
    for at in range(10):
        assert rig.connection.check_time(rig.now) == []
        rig.feed(raw[at : at + 1])
        rig.now += 1
    assert failure(rig.connection.check_time(rig.now)) is ErrorCode.TOO_SLOW


def test_a_slow_device_may_send_whole_frames() -> None:
    rig = with_stream()
    for at in range(60):
        assert rig.feed(chunk(1, at, b"x")) == [received(1, at, b"x")]
        rig.now += 1
        assert rig.connection.check_time(rig.now) == []


def test_the_device_is_not_silent_while_the_server_does_not_read() -> None:
    rig = welcomed()
    rig.feed(open_frame(1) + chunk(1, 0, LARGE)[:50])
    rig.feed(chunk(1, 0, LARGE)[50:])
    assert rig.connection.is_held
    assert rig.connection.check_time(rig.now + 500) == []
    rig.now += 500
    rig.connection.opened(1, opened_of(), SIZE_UNKNOWN)
    assert rig.resume() == [received(1, 0, LARGE)]
    assert rig.connection.check_time(rig.now + 29) == []
    assert rig.connection.state is ConnectionState.OPEN


def test_timeouts_stop_while_the_caller_checks_a_credential() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(HELLO))
    assert rig.connection.state is ConnectionState.DECIDING
    assert rig.connection.deadline == math.inf
    assert rig.connection.check_time(rig.now + 500) == []


def test_a_device_whose_input_waits_still_gets_pings() -> None:
    rig = welcomed()
    rig.feed(open_frame(1) + chunk(1, 0, b"data"))
    assert rig.connection.is_held
    assert rig.connection.check_time(rig.now + 30) == []
    assert [type(frame) for _, frame in rig.sent()] == [frames.Ping]
