"""The benchmark of a bad link at its smallest: every contestant gets the file through, however often it is cut."""

import math

import pytest

from benchmarks import link
from benchmarks.__main__ import measure
from benchmarks.lab import Size
from benchmarks.lossy import BEYOND
from benchmarks.peers import tus
from benchmarks.results import Case, Result
from benchmarks.resuming import Report

pytestmark = pytest.mark.skipif(link.unavailable() is not None, reason=f"no link: {link.unavailable()}")


@pytest.fixture(scope="module")
def result() -> Result:
    return measure("lossy", Size.TINY)


@pytest.fixture(scope="module")
def case(result: Result) -> Case:
    (only,) = result.cases
    return only


def test_goodput_is_compared_with_the_raw_stream(case: Case) -> None:
    assert (case.unit, case.higher_is_better) == ("bytes/s", True)
    assert case.limit is not None
    for rival in (case.limit, *case.peers.values()):
        for value in (rival.figure.median, rival.ratio.low, rival.ratio.median, rival.ratio.high):
            assert math.isfinite(value)
            assert value > 0


def test_the_peer_is_measured_or_named_as_missing(result: Result, case: Case) -> None:
    missing = tus.missing()
    assert list(result.missing) == ([missing] if missing is not None else [])
    assert list(case.peers) == ([] if missing is not None else ["tus"])


def test_every_contestant_was_cut(case: Case) -> None:
    assert case.limit is not None
    for beside in (case.beside, case.limit.beside, *(peer.beside for peer in case.peers.values())):
        assert beside["cuts"] >= 1
        assert beside["largest window of the socket at a cut, bytes"] > 0
        assert beside["bytes sent again"] >= 0


def test_goodput_and_bytes_sent_again_both_have_a_target(case: Case) -> None:
    assert [(target.bound, target.at_least) for target in case.targets] == [(0.95, True), (0, False)]


def test_only_unacknowledged_bytes_are_sent_again(case: Case) -> None:
    assert case.beside[BEYOND] <= 0


def test_the_report_counts_unacknowledged_and_repeated_bytes_per_cut() -> None:
    report = Report()
    report.connected(0)
    report.sent(100)
    report.acknowledged(30)
    report.connected(70)
    report.sent(10)
    report.connected(75)
    assert report.resent_bytes == [30, 5]
    assert report.in_flight_bytes == [70, 10]
