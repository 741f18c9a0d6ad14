"""The growth of a frame, from look to look."""

from protocol.progress import SLOW_S, Progress


def test_the_rate_is_that_between_the_last_two_looks() -> None:
    progress = Progress(1_000_000, 10)
    progress.look(1_000_200, 12, is_starved=False)
    assert progress.rate_bytes_per_s == 100
    progress.look(1_001_200, 13, is_starved=False)
    assert progress.rate_bytes_per_s == 1000


def test_it_is_slow_once_it_was_under_way_for_long_enough_and_says_so_once() -> None:
    progress = Progress(0, 10)
    assert not progress.look(10**6, 10 + SLOW_S / 2, is_starved=False)
    assert progress.look(2 * 10**6, 10 + SLOW_S, is_starved=False)
    assert not progress.look(2 * 10**6, 12, is_starved=False)
    assert progress.is_slow


def test_time_that_is_skipped_does_not_count() -> None:
    progress = Progress(0, 10)
    progress.skip(500, 20)
    progress.look(600, 20.5, is_starved=False)
    assert (progress.under_way_s, progress.rate_bytes_per_s) == (0.5, 200)


def test_two_looks_at_one_time_are_one() -> None:
    progress = Progress(0, 10)
    progress.look(100, 11, is_starved=False)
    progress.look(100, 11, is_starved=False)
    assert (progress.under_way_s, progress.rate_bytes_per_s) == (1, 100)


def test_a_starved_frame_is_under_way_and_keeps_its_rate() -> None:
    progress = Progress(0, 10)
    progress.look(100, 11, is_starved=False)
    progress.look(100, 15, is_starved=True)
    assert (progress.under_way_s, progress.rate_bytes_per_s) == (5, 100)
