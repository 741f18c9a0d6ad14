"""Back-off and patience."""

import random

import pytest

from device.backoff import Backoff, Patience
from device.exceptions import UnreachableError
from tests.support.fake_time import FakeTime


def test_ceilings_double_up_to_a_minute() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_s() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_jitter_is_full() -> None:
    backoff = Backoff(random.Random(7).random)
    for _ in range(6):
        backoff.next_s()
    waits = [backoff.next_s() for _ in range(500)]
    assert min(waits) < 5
    assert 55 < max(waits) < 60


def test_progress_starts_with_short_waits_again() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 1


def test_attempts_are_counted_from_the_last_progress() -> None:
    patience = Patience(2, None, FakeTime().clock)
    patience.interrupted("cut", 0)
    patience.progressed()
    patience.interrupted("cut", 0)  # of the attempt that made the progress
    patience.interrupted("cut", 0)
    with pytest.raises(UnreachableError, match="cut; given up after 2 attempts"):
        patience.interrupted("cut", 0)


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    time = FakeTime()
    patience = Patience(None, 30, time.clock)
    time.now += 20
    patience.interrupted("cut", 10)
    with pytest.raises(UnreachableError, match="given up after 30 s"):
        patience.interrupted("cut", 11)
    patience.progressed()
    patience.interrupted("cut", 11)


def test_without_limits_patience_is_endless() -> None:
    time = FakeTime()
    patience = Patience(None, None, time.clock)
    for _ in range(1000):
        time.now += 60
        patience.interrupted("cut", 60)
