"""Chunk sizes follow the rate at which the server takes what is sent."""

import pytest

from device.pace import CHUNK_BYTES_FIRST, CHUNK_BYTES_MIN, SAMPLE_CHUNKS, Pace

CHUNK_BYTES_MAX = 256 * 1024


def watched(bytes_per_s: int, seconds: float, pace: Pace | None = None) -> Pace:
    """A pace that has seen acknowledgements come at this rate, ten a second."""
    seen = pace or Pace(CHUNK_BYTES_MAX)
    seen.begin(100.0)
    for tenth in range(1, round(seconds * 10) + 1):
        seen.answered(bytes_per_s // 10, 100.0 + tenth / 10)
    return seen


@pytest.mark.parametrize(
    ("bytes_per_s", "chunk_bytes"),
    [(1000, 4096), (125_000, 4096), (1_000_000, 12 * 1024), (12_500_000, 188 * 1024), (10**9, 256 * 1024)],
)
def test_a_chunk_takes_a_64th_of_a_second_between_the_bounds(bytes_per_s: int, chunk_bytes: int) -> None:
    assert watched(bytes_per_s, 3).chunk_bytes == chunk_bytes


def test_a_slow_link_is_not_judged_before_a_second_has_passed() -> None:
    assert watched(125_000, 0.8).chunk_bytes == CHUNK_BYTES_FIRST


def test_a_fast_link_is_judged_as_soon_as_many_chunks_were_taken() -> None:
    pace = Pace(CHUNK_BYTES_MAX)
    pace.begin(0.0)
    pace.answered((SAMPLE_CHUNKS - 1) * CHUNK_BYTES_FIRST, 0.003)
    assert pace.chunk_bytes == CHUNK_BYTES_FIRST
    pace.answered(CHUNK_BYTES_FIRST, 0.004)
    assert pace.chunk_bytes == CHUNK_BYTES_MAX


def test_a_link_that_became_slow_gets_small_chunks_again() -> None:
    assert watched(125_000, 2, watched(10**9, 3)).chunk_bytes == CHUNK_BYTES_MIN


def test_idle_time_does_not_count() -> None:
    pace = watched(1_000_000, 0.5)
    pace.begin(5000.0)
    pace.answered(500_000, 5000.6)
    assert pace.chunk_bytes == 12 * 1024


def test_no_time_at_all_gives_no_rate() -> None:
    pace = Pace(CHUNK_BYTES_MAX)
    pace.answered(10**9, 1.0)
    pace.begin(1.0)
    pace.answered(10**9, 1.0)
    assert pace.chunk_bytes == CHUNK_BYTES_FIRST


def test_the_callers_bound_holds() -> None:
    pace = Pace(1000)
    assert pace.chunk_bytes == 1000
    assert watched(10**9, 3, pace).chunk_bytes == 1000


def test_what_waits_in_the_socket_is_two_chunks() -> None:
    assert 2 * CHUNK_BYTES_FIRST < Pace(CHUNK_BYTES_MAX).unsent_bytes < 2.1 * CHUNK_BYTES_FIRST
