"""Expired authority: what continues, what waits, and what REFRESH releases. PROTOCOL.md §13."""

import dataclasses

import pytest

from protocol import codec, frames
from protocol.constants import SIZE_UNKNOWN, Action, UploadState
from protocol.errors import ErrorCode
from protocol.events import TokenOffered
from protocol.outbox import withheld_max
from protocol.server import REQUESTS_MAX
from protocol.state import ConnectionState
from tests.support.server_outcomes import received
from tests.support.server_rig import (
    LIMITS,
    ServerRig,
    chunk,
    corrupt,
    open_frame,
    open_stream,
    opened_of,
    welcomed,
    with_stream,
)

WITHHELD_MAX = withheld_max(LIMITS.streams_max)


def expired() -> ServerRig:
    rig = with_stream()
    open_stream(rig, 2)
    rig.connection.expire()
    assert rig.connection.state is ConnectionState.EXPIRED
    return rig


def test_after_expiry_chunks_are_received_but_acks_wait_for_refresh() -> None:
    rig = expired()
    assert rig.feed(chunk(1, 0, b"data") + chunk(2, 0, b"more")) == [received(1, 0, b"data"), received(2, 0, b"more")]
    rig.connection.acknowledge(1, 4, [], 4)
    rig.connection.acknowledge(2, 4, [], 4)
    rig.connection.fail_stream(2, ErrorCode.FENCED, "taken over")
    assert rig.sent() == []
    assert rig.feed(codec.encode(frames.Refresh("new"))) == [TokenOffered("new")]
    rig.connection.refreshed(600)
    refreshed, (number, error), ack = rig.sent()
    assert refreshed == (0, frames.Refreshed(600))
    assert isinstance(error, frames.Error)
    assert (number, error.code, error.next_expected_byte) == (2, ErrorCode.FENCED, 4)
    assert ack == (1, frames.Ack(4))
    assert rig.connection.state is ConnectionState.OPEN


def test_after_expiry_only_pong_is_sent() -> None:
    rig = expired()
    rig.feed(codec.encode(frames.Ping(7)) + corrupt(1, 0, b"evil") + chunk(3, 0, b"data"))
    assert rig.connection.check_time(rig.now + 60) == []
    assert rig.sent() == [(0, frames.Pong(7))]
    rig.connection.refreshed(600)
    assert [type(sent) for _, sent in rig.sent()] == [frames.Refreshed, frames.Nack, frames.Error]


def test_after_expiry_a_flood_of_refusals_stops_reading() -> None:
    rig = expired()
    raw = b"".join(corrupt(1, at, b"x") for at in range(10 * WITHHELD_MAX))
    assert len(rig.feed(raw)) == WITHHELD_MAX
    assert rig.connection.is_held
    rig.connection.refreshed(600)
    assert len(rig.resume()) == 9 * WITHHELD_MAX


def test_answers_that_every_stream_and_request_can_await_do_not_stop_reading() -> None:
    rig = welcomed(limits=dataclasses.replace(LIMITS, streams_max=200))
    for number in range(1, 201):
        open_stream(rig, number)
        rig.connection.answered()
    rig.feed(codec.encode(frames.Query("log.bin"), 0) * REQUESTS_MAX)
    rig.connection.expire()
    for _ in range(REQUESTS_MAX):
        rig.connection.send(0, frames.Status(0, UploadState.NONE, 0, SIZE_UNKNOWN))
        rig.connection.answered()
    for number in range(1, 201):
        rig.connection.fail_stream(number, ErrorCode.STORAGE_FAILED, "the disk failed")
    assert not rig.connection.is_held
    assert rig.feed(codec.encode(frames.Refresh("new"))) == [TokenOffered("new")]


def test_an_answer_does_not_let_a_flood_continue() -> None:
    rig = welcomed()
    open_stream(rig, 1)
    rig.feed(codec.encode(frames.Query("log.bin"), 0))
    rig.connection.expire()
    rig.feed(b"".join(corrupt(1, at, b"x") for at in range(2 * WITHHELD_MAX)))
    rig.connection.answered()
    assert rig.connection.is_held


@pytest.mark.parametrize("end", ["finished", "aborted"])
def test_withheld_acks_of_a_stream_that_ended_are_never_sent(end: str) -> None:
    rig = expired()
    rig.connection.acknowledge(1, 4, [], 0)
    if end == "finished":
        rig.connection.finished(1, frames.Finished(42, 4, 0))
    else:
        rig.connection.aborted(1, 42)
    assert rig.sent() == []
    rig.connection.refreshed(600)
    refreshed, (number, answer) = rig.sent()
    assert refreshed == (0, frames.Refreshed(600))
    assert number == 1
    assert isinstance(answer, frames.Finished | frames.Aborted)


def test_answers_to_earlier_requests_wait_for_refresh() -> None:
    rig = welcomed()
    rig.feed(open_frame(1) + chunk(1, 0, b"data"))
    rig.connection.expire()
    rig.connection.opened(1, opened_of(), SIZE_UNKNOWN)
    assert rig.resume() == [received(1, 0, b"data")]
    rig.connection.acknowledge(1, 4, [], 4)
    assert rig.sent() == []
    rig.connection.refreshed(600)
    assert rig.sent() == [(0, frames.Refreshed(600)), (1, opened_of()), (1, frames.Ack(4))]


@pytest.mark.parametrize(
    "request_",
    [
        open_frame(3),
        codec.encode(frames.Finish(4), 1),
        codec.encode(frames.Abort(), 1),
        codec.encode(frames.Query("log.bin"), 0),
    ],
    ids=["open", "finish", "abort", "query"],
)
def test_after_expiry_requests_wait(request_: bytes) -> None:
    rig = expired()
    assert rig.feed(chunk(1, 0, b"data") + request_) == [received(1, 0, b"data")]
    assert rig.connection.is_held
    rig.connection.refreshed(600)
    assert len(rig.resume()) == 1


def test_a_refresh_in_time_is_answered_and_changes_nothing_else() -> None:
    rig = with_stream()
    assert rig.feed(codec.encode(frames.Refresh("new"))) == [TokenOffered("new")]
    rig.connection.refreshed(600)
    assert rig.sent() == [(0, frames.Refreshed(600))]


def test_without_a_refresh_the_connection_ends_with_the_reason() -> None:
    rig = expired()
    rig.connection.acknowledge(1, 4, [], 0)
    rig.connection.fail(ErrorCode.TOKEN_EXPIRED, "no refresh within 30 s")
    ((stream, error),) = rig.sent()
    assert stream == 0
    assert isinstance(error, frames.Error)
    assert error.action is Action.REAUTHENTICATE


def test_authority_cannot_expire_during_the_handshake() -> None:
    connection = ServerRig().connection
    connection.expire()
    assert connection.state is ConnectionState.START
