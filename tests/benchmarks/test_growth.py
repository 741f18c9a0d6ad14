"""The growth benchmark at its smallest, which shows only that it runs."""

import math

import pytest

from benchmarks.__main__ import measure
from benchmarks.growth import METRICS
from benchmarks.lab import Size
from benchmarks.results import Result


@pytest.fixture(scope="module")
def result() -> Result:
    return measure("growth", Size.TINY)


def test_each_figure_is_a_case(result: Result) -> None:
    memory = {"resident memory", "peak memory while a file is received", "resident memory after a file"}
    assert {case.name for case in result.cases} == {"start-up", *(metric.case for metric in METRICS), *memory}


def test_every_case_is_compared_with_the_smallest_size(result: Result) -> None:
    for case in result.cases:
        assert case.limit is not None
        assert case.limit.ratio.median > 0
        assert math.isfinite(case.limit.ratio.median)
        assert not case.higher_is_better


def test_each_case_has_a_target_and_a_figure_for_each_size(result: Result) -> None:
    for case in result.cases:
        assert case.targets
        assert len(case.beside) == 2
        assert all(value > 0 for value in case.beside.values())


def test_the_ratio_at_the_top_is_that_of_the_worst_case(result: Result) -> None:
    top = result.as_json()
    ratios = [case.limit.ratio.median for case in result.cases if case.limit is not None]
    assert top["ratio_to_limit"] == min(ratios)
    assert top["peers"] == {}
