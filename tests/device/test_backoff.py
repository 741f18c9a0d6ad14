"""Back-off and patience."""

import random
from collections import Counter

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


def test_those_who_are_told_to_wait_together_come_back_apart_and_less_and_less_often() -> None:
    entropy = random.Random(7)
    tries: list[list[float]] = []
    for _ in range(1000):
        backoff = Backoff(entropy.random)
        now_s = 0.0
        # The server names the same wait to all, which is the worst that it can do.
        tries.append([now_s := now_s + backoff.after_s(5000) for _ in range(8)])
    in_the_busiest_second = [max(Counter(int(second) for second in each).values()) for each in zip(*tries, strict=True)]
    assert min(min(each) for each in tries) >= 5
    assert in_the_busiest_second == sorted(in_the_busiest_second, reverse=True)
    assert in_the_busiest_second[1] < 700
    assert in_the_busiest_second[-1] < 30
    first, last = (sum(begin_s <= second < begin_s + 30 for each in tries for second in each) for begin_s in (5, 150))
    assert last < first / 3


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
