"""The end of a connection: GOAWAY and the last words. PROTOCOL.md §15."""

from protocol import frames
from protocol.constants import SIZE_UNKNOWN, Action
from protocol.errors import ErrorCode
from protocol.events import ConnectionFailed
from protocol.server_output import WAIT_MS
from tests.support.server_outcomes import LARGE, received
from tests.support.server_rig import ServerRig, chunk, open_frame, with_stream


def test_after_goaway_open_gets_no_answer_and_other_frames_work() -> None:
    rig = with_stream()
    rig.connection.go_away(1500, "restart")
    assert rig.sent() == [(0, frames.Goaway(ErrorCode.SHUTTING_DOWN, 1500, "restart"))]
    assert rig.feed(open_frame(2) + chunk(2, 0, b"void") + chunk(1, 0, b"data")) == [received(1, 0, b"data")]
    assert not rig.connection.has_output
    rig.connection.acknowledge(1, 4, [], 4)
    assert rig.connection.has_output
    assert rig.sent() == [(1, frames.Ack(4))]


def test_goaway_is_not_sent_during_the_handshake() -> None:
    rig = ServerRig()
    rig.connection.go_away(1500, "restart")
    assert rig.connection.going_away
    assert rig.sent() == []


def test_the_last_words_are_sent_once_and_nothing_follows() -> None:
    rig = with_stream()
    rig.connection.fail(ErrorCode.INTERNAL, "broken")
    rig.connection.fail(ErrorCode.IDLE_TIMEOUT, "silent")
    rig.connection.acknowledge(1, 4, [], 0)
    rig.connection.send(1, frames.Verifying(5))
    assert rig.sent() == [(0, frames.Error(ErrorCode.INTERNAL, Action.WAIT, WAIT_MS, SIZE_UNKNOWN, "broken"))]
    assert rig.feed(chunk(1, 0, b"data") + b"anything") == [ConnectionFailed(ErrorCode.INTERNAL, "broken")]
    assert rig.feed(LARGE * 10) == []
    assert rig.pool.lent == 0
