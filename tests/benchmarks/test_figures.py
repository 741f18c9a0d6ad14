"""Medians, intervals and ratios of known values, and rounding."""

import math

import pytest

from benchmarks.figures import T_975, interval, paired_ratio, rounded


@pytest.mark.parametrize(("values", "median"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5)])
def test_the_median_does_not_depend_on_the_order(values: list[float], median: float) -> None:
    assert interval(values).median == interval(sorted(values)).median == median


def test_equal_values_give_an_interval_of_no_width() -> None:
    found = interval([7.0] * 5)
    assert (found.median, found.low, found.high) == pytest.approx((7, 7, 7))


def test_the_interval_is_that_of_students_t_on_logarithms() -> None:
    # The logarithms are -1, 0 and 1: mean 0, deviation 1, so the interval is 4.303 / sqrt(3) either way.
    found = interval([1 / math.e, 1.0, math.e])
    assert math.log(found.high) == pytest.approx(4.303 / math.sqrt(3))
    assert math.log(found.low) == pytest.approx(-4.303 / math.sqrt(3))


def test_more_values_give_a_narrower_interval() -> None:
    two, many = interval([1.0, 2.0]), interval([1.0, 2.0] * 20)
    assert two.low < many.low < many.high < two.high
    assert math.log(two.high / two.low) == pytest.approx(math.log(2) * T_975[0])


def test_one_value_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="two data points"):
        interval([1.0])


def test_a_rate_is_ahead_when_it_is_higher() -> None:
    assert paired_ratio([20, 30, 40], [10, 10, 10], higher_is_better=True).median == 3


def test_a_time_is_ahead_when_it_is_lower() -> None:
    assert paired_ratio([10, 10, 10], [20, 30, 40], higher_is_better=False).median == 3


def test_ratios_are_taken_round_by_round_so_that_a_common_drift_cancels() -> None:
    drifting = [10.0, 50.0, 200.0]
    found = paired_ratio([value / 2 for value in drifting], drifting, higher_is_better=True)
    assert (found.median, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_round_without_its_pair_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1, 2, 3], [1, 2], higher_is_better=True)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.80449, 3, "0.804"),
        (1.0, 3, "1"),
        (12.345, 3, "12.3"),
        (999.6, 3, "1,000"),
        (5000, 3, "5,000"),
        (682_691, 4, "682,700"),
        (117.4, 2, "120"),
        (0, 2, "0"),
    ],
)
def test_figures_are_rounded_without_exponents(value: float, digits: int, text: str) -> None:
    assert rounded(value, digits) == text
