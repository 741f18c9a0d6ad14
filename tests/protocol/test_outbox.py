"""Outgoing frames: cut to what the device accepts, and withheld after expiry. PROTOCOL.md §7, §13."""

from protocol import codec, frames
from protocol.constants import FRAME_BYTES_MIN, Action, UploadState
from protocol.errors import ErrorCode
from protocol.outbox import Outbox
from protocol.ranges import Span
from tests.support.server_rig import opened_of, parse

RANGES = [Span(at * 10, at * 10 + 5) for at in range(1, 40)]


def outbox(frame_bytes_max: int = 4096, ack_ranges_max: int = 255) -> Outbox:
    made = Outbox()
    made.frame_bytes_max = frame_bytes_max
    made.ack_ranges_max = ack_ranges_max
    return made


def test_an_empty_outbox_sends_nothing() -> None:
    assert outbox().take() == b""


def test_frames_go_out_once_in_order() -> None:
    out = outbox()
    raw = out.send(0, frames.Ping(1))
    assert out.take() == raw
    out.send(0, frames.Ping(2))
    out.send(3, frames.Verifying(9))
    assert list(parse(out.take())) == [(0, frames.Ping(2)), (3, frames.Verifying(9))]
    assert out.take() == b""


def test_an_explanation_that_does_not_fit_is_left_out() -> None:
    error = frames.Error(ErrorCode.GONE, Action.GIVE_UP, 0, text="x" * 60)
    out = outbox(FRAME_BYTES_MIN)
    assert len(out.send(1, error)) <= FRAME_BYTES_MIN
    ((_, sent),) = parse(out.take())
    assert sent == frames.Error(ErrorCode.GONE, Action.GIVE_UP, 0)


def test_before_hello_frames_fit_the_smallest_limit() -> None:
    out = Outbox()
    assert len(out.send(0, frames.Refused(1, Action.GIVE_UP, 1, 1, 0, "x" * 200))) <= FRAME_BYTES_MIN


def test_ack_ranges_are_cut_to_what_the_device_asked_for() -> None:
    for asked in (1, 2, 3, 39):
        out = outbox(ack_ranges_max=asked)
        out.acknowledge(1, 5, RANGES)
        assert list(parse(out.take())) == [(1, frames.Ack(5, tuple(RANGES[:asked])))]


def test_ack_ranges_are_cut_to_what_fits() -> None:
    for frame_bytes_max in range(FRAME_BYTES_MIN, 200):
        out = outbox(frame_bytes_max)
        out.acknowledge(1, 5, RANGES)
        raw = out.take()
        assert len(raw) <= frame_bytes_max
        assert len(raw) + 16 > frame_bytes_max, "one more would not fit"
        ((_, ack),) = parse(raw)
        assert isinstance(ack, frames.Ack)
        assert ack.ranges == tuple(RANGES[: len(ack.ranges or ())])


def test_a_device_that_asked_for_no_ranges_gets_none() -> None:
    out = outbox(ack_ranges_max=0)
    out.acknowledge(1, 5, RANGES)
    assert out.take() == codec.encode_ack(1, 5)


def test_an_ack_without_ranges_is_its_fixed_part() -> None:
    out = outbox()
    out.acknowledge(1, 5, [])
    assert out.take() == codec.encode_ack(1, 5)


def test_only_the_latest_withheld_ack_of_each_stream_goes_out() -> None:
    out = outbox()
    out.withhold(10)
    out.acknowledge(1, 10, [])
    out.acknowledge(2, 7, RANGES[:1])
    out.acknowledge(1, 20, [])
    out.send(0, frames.Pong(1))
    assert list(parse(out.take())) == [(0, frames.Pong(1))]
    out.release()
    assert list(parse(out.take())) == [(1, frames.Ack(20)), (2, frames.Ack(7, tuple(RANGES[:1])))]
    out.release()
    assert out.take() == b""


def test_frames_withheld_for_a_stream_that_ended_are_dropped() -> None:
    out = outbox()
    out.withhold(10)
    out.acknowledge(1, 10, [])
    out.send(1, opened_of())
    out.forget(1)
    out.forget(2)
    out.release()
    assert out.take() == b""


def test_a_withheld_query_answer_survives_the_end_of_a_stream_with_its_number() -> None:
    out = outbox()
    out.withhold(10)
    out.send(1, frames.Status(0, UploadState.NONE, 0))
    out.forget(1)
    out.release()
    assert list(parse(out.take())) == [(1, frames.Status(0, UploadState.NONE, 0))]


def test_withheld_frames_go_out_in_order_ahead_of_the_acks() -> None:
    withheld: list[tuple[int, frames.ControlFrame]] = [
        (1, opened_of()),
        (2, frames.Verifying(5)),
        (0, frames.Status(0, UploadState.NONE, 0)),
        (3, frames.Finished(42, 10, 0)),
        (4, frames.Aborted(42)),
        (1, frames.Nack(ErrorCode.CHUNK_CORRUPT, 0, 1, 0)),
        (5, frames.Error(ErrorCode.GONE, Action.GIVE_UP, 0)),
    ]
    out = outbox()
    out.withhold(10)
    out.acknowledge(1, 10, [])
    for number, frame in withheld:
        out.send(number, frame)
    assert out.take() == b""
    out.release()
    assert list(parse(out.take())) == [*withheld, (1, frames.Ack(10))]
    out.release()
    assert out.take() == b""


def test_frames_about_the_connection_are_not_withheld() -> None:
    sent: list[tuple[int, frames.ControlFrame]] = [
        (0, frames.Pong(1)),
        (0, frames.Refreshed(60)),
        (0, frames.Goaway(ErrorCode.SHUTTING_DOWN, 1000)),
        (0, frames.Error(ErrorCode.TOKEN_EXPIRED, Action.REAUTHENTICATE, 0)),
    ]
    out = outbox()
    out.withhold(10)
    for number, frame in sent:
        out.send(number, frame)
    assert list(parse(out.take())) == sent


def test_an_outbox_is_full_once_many_frames_are_withheld() -> None:
    out = outbox()
    for _ in range(20):
        out.send(1, frames.Verifying(1))
    assert not out.is_full, "frames that are not withheld go out"
    out.withhold(10)
    for _ in range(10):
        assert not out.is_full
        out.send(1, frames.Nack(ErrorCode.CHUNK_CORRUPT, 0, 1, 0))
    assert out.is_full
    out.release()
    assert not out.is_full


def test_nothing_goes_out_after_the_last_words() -> None:
    out = outbox()
    raw = out.send(0, frames.Error(ErrorCode.INTERNAL, Action.WAIT, 5000))
    out.close()
    out.send(1, frames.Verifying(1))
    out.acknowledge(1, 10, [])
    out.acknowledge(1, 10, RANGES)
    assert out.take() == raw
