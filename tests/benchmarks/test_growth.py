"""Growth, measured with catalogs so small that nothing is learned but that it can be measured."""

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


def test_all_is_compared_with_the_smallest(result: Result) -> None:
    for case in result.cases:
        assert case.limit is not None
        assert case.limit.ratio.median > 0
        assert math.isfinite(case.limit.ratio.median)
        assert not case.higher_is_better


def test_each_case_has_a_bound_and_each_size_its_figure(result: Result) -> None:
    for case in result.cases:
        assert case.targets
        assert len(case.beside) == 2
        assert all(value > 0 for value in case.beside.values())


def test_it_tells_the_worst_case_as_one_line_of_json(result: Result) -> None:
    told = result.as_json()
    ratios = [case.limit.ratio.median for case in result.cases if case.limit is not None]
    assert told["ratio_to_limit"] == min(ratios)
    assert told["peers"] == {}
