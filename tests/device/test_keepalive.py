"""Silence: probed after one interval, given up after two."""

from device.keepalive import Keepalive


def keepalive() -> Keepalive:
    started = Keepalive(100.0)
    started.interval_s = 20
    return started


def test_before_welcome_there_is_no_limit() -> None:
    waiting = Keepalive(100.0)
    assert not waiting.is_dead(10.0**9)
    assert not waiting.take_ping(10.0**9)


def test_a_quiet_connection_is_probed_once_an_interval() -> None:
    quiet = keepalive()
    assert [now_s for now_s in range(100, 165) if quiet.take_ping(now_s)] == [120, 140, 160]


def test_a_silent_connection_is_dead_after_two_intervals() -> None:
    silent = keepalive()
    assert not silent.is_dead(139.9)
    assert silent.is_dead(140.0)
    assert silent.silence_s(140.0) == 40.0


def test_any_byte_is_a_sign_of_life() -> None:
    alive = keepalive()
    alive.heard(119.0)
    assert not alive.take_ping(138.0)
    assert alive.take_ping(139.0)
    assert not alive.is_dead(158.9)
    assert alive.is_dead(159.0)
