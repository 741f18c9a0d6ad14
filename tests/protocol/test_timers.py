"""Silence and slowness, in the caller's time. PROTOCOL.md §12."""

import pytest

from protocol.errors import ErrorCode
from protocol.timers import Probe, Timers, TimerSettings

SETTINGS = TimerSettings(
    handshake_timeout_s=10, keepalive_s=30, idle_timeout_s=90, rate_min_bytes_per_s=100, rate_window_s=20
)
T = 5000.0


def code_of(due: tuple[ErrorCode, str] | Probe | None) -> ErrorCode | None:
    return due[0] if isinstance(due, tuple) else None


def welcomed() -> Timers:
    timers = Timers(SETTINGS, T)
    timers.welcomed()
    return timers


def test_bytes_do_not_extend_the_handshake_timeout() -> None:
    timers = Timers(SETTINGS, T)
    for second in range(10):
        timers.received(1, T + second)
        timers.sent(T + second)
        assert timers.check(T + second) is None
        assert timers.deadline == T + 10
    assert timers.check(T + 9.999) is None
    assert code_of(timers.check(T + 10)) is ErrorCode.HANDSHAKE_TIMEOUT


def test_a_silent_connection_is_pinged_every_interval_and_then_closed() -> None:
    timers = welcomed()
    for due in (T + 30, T + 60):
        assert timers.deadline == due
        assert timers.check(due - 0.001) is None
        assert timers.check(due) is Probe.PING
        assert timers.check(due) is None
    assert timers.deadline == T + 90
    assert timers.check(T + 89.999) is None
    assert code_of(timers.check(T + 90)) is ErrorCode.IDLE_TIMEOUT


def test_every_received_byte_counts_as_liveness() -> None:
    timers = welcomed()
    timers.received(1, T + 80)
    timers.sent(T + 80)
    assert timers.deadline == T + 110
    assert timers.check(T + 110) is Probe.PING
    assert code_of(timers.check(T + 170)) is ErrorCode.IDLE_TIMEOUT


def test_a_server_that_sent_nothing_pings_even_while_bytes_arrive() -> None:
    timers = welcomed()
    for second in range(1, 30):
        timers.received(1, T + second)
        assert timers.deadline == T + 30
        assert timers.check(T + second) is None
    timers.received(1, T + 30)
    assert timers.check(T + 30) is Probe.PING
    timers.sent(T + 40)
    timers.received(1, T + 69)
    assert timers.deadline == T + 70


def test_a_connection_with_traffic_both_ways_needs_no_ping() -> None:
    timers = welcomed()
    for second in range(1, 100):
        timers.received(1, T + second)
        timers.sent(T + second)
        assert timers.check(T + second) is None


def test_a_frame_that_grows_by_one_byte_a_second_is_too_slow() -> None:
    timers = welcomed()
    timers.frame(under_way=True, now=T)
    for second in range(1, 20):
        timers.received(1, T + second)
        timers.frame(under_way=True, now=T + second)
        assert timers.check(T + second) is None
    timers.received(1, T + 20)
    assert code_of(timers.check(T + 20)) is ErrorCode.TOO_SLOW


def test_a_frame_at_the_lowest_rate_may_take_its_time() -> None:
    timers = welcomed()
    timers.frame(under_way=True, now=T)
    for second in range(1, 100):
        timers.received(100, T + second)
        timers.sent(T + second)
        timers.frame(under_way=True, now=T + second)
        assert timers.check(T + second) is None


def test_a_fast_start_does_not_excuse_later_slowness() -> None:
    timers = welcomed()
    timers.frame(under_way=True, now=T)
    assert timers.deadline == T + 20
    timers.received(1_000_000, T + 20)
    timers.sent(T + 20)
    assert timers.check(T + 20) is None
    assert timers.deadline == T + 40
    timers.received(1, T + 40)
    assert code_of(timers.check(T + 40)) is ErrorCode.TOO_SLOW


def test_between_frames_nothing_is_slow() -> None:
    timers = welcomed()
    timers.frame(under_way=True, now=T)
    timers.received(10, T + 1)
    timers.frame(under_way=False, now=T + 1)
    timers.received(1, T + 21)
    assert timers.check(T + 25) is None


def test_without_a_lowest_rate_only_silence_ends_the_connection() -> None:
    timers = Timers(TimerSettings(10, 30, 90, rate_min_bytes_per_s=0, rate_window_s=20), T)
    timers.welcomed()
    timers.frame(under_way=True, now=T)
    timers.received(0, T + 20)
    assert timers.check(T + 20) is None


@pytest.mark.parametrize("silence_s", [25, 85, 1000])
def test_time_when_the_server_does_not_read_is_not_silence(silence_s: float) -> None:
    timers = welcomed()
    timers.frame(under_way=True, now=T)
    timers.paused(T + silence_s)
    timers.sent(T + silence_s)
    assert timers.check(T + silence_s + 29) is None
    assert timers.check(T + silence_s + 30) is Probe.PING


def test_a_server_that_does_not_read_still_sends_pings() -> None:
    timers = welcomed()
    timers.paused(T + 30)
    assert timers.check(T + 30) is Probe.PING
    timers.paused(T + 31)
    assert timers.check(T + 31) is None
    assert timers.deadline == T + 60
