"""The ingest benchmark at its smallest: every installed contestant takes part, and missing ones are named."""

import dataclasses
import math
from pathlib import Path

import pytest

from benchmarks import ingest, table
from benchmarks.__main__ import measure
from benchmarks.lab import Lab, Size
from benchmarks.results import Result


@pytest.fixture(scope="module")
def result() -> Result:
    return measure("ingest", Size.TINY)


def test_every_case_has_a_limit_and_finite_ratios(result: Result) -> None:
    assert [case.name for case in result.cases] == ["one", "eight", "tls", "sha256"]
    for case in result.cases:
        assert (case.unit, case.higher_is_better) == ("GiB/s", True)
        assert case.limit is not None
        for rival in (case.limit, *case.peers.values()):
            for value in (rival.figure.median, rival.ratio.low, rival.ratio.median, rival.ratio.high):
                assert math.isfinite(value)
                assert value > 0


def test_processor_time_stands_beside_each_figure(result: Result) -> None:
    for case in result.cases:
        assert case.limit is not None
        assert case.limit.beside[ingest.CPU] > 0
        assert all(ingest.CPU in beside for beside in (case.beside, *(peer.beside for peer in case.peers.values())))


def test_commits_of_the_daemon_are_counted_beside_syncs_of_the_limit(result: Result) -> None:
    for case in result.cases:
        assert case.limit is not None
        assert case.beside["cycles"] >= 1
        assert case.limit.beside["syncs"] >= 1


def test_the_target_is_lower_over_tls(result: Result) -> None:
    bounds = {case.name: case.targets[0].bound for case in result.cases}
    assert bounds == {"one": 0.9, "eight": 0.9, "tls": 0.8, "sha256": 0.9}


def test_installed_peers_take_part_and_the_others_are_named(result: Result) -> None:
    for case, shape in zip(result.cases, ingest.SHAPES, strict=True):
        assert set(case.peers) == {peer.name for peer in shape.peers if peer.missing() is None}
    every = {peer.missing for shape in ingest.SHAPES for peer in shape.peers}
    assert set(result.missing) == {absent for missing in every if (absent := missing()) is not None}


def test_peers_say_that_they_keep_no_sha256(result: Result) -> None:
    assert all("no SHA-256" in peer.promise for peer in result.cases[-1].peers.values())


def test_the_result_can_be_printed(result: Result) -> None:
    assert '"ratio_to_limit"' in result.as_line()
    assert "sha256" in table.text(result)


def test_a_peer_that_is_not_installed_is_named_once_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = dataclasses.replace(ingest.NGINX, missing=lambda: "nginx")
    shapes = [dataclasses.replace(shape, peers=(absent,)) for shape in ingest.SHAPES[:2]]
    monkeypatch.setattr(ingest, "SHAPES", shapes)
    result = ingest.run(Lab(Size.TINY, tmp_path, lambda _: None))
    assert result.missing == ("nginx",)
    assert not any(case.peers for case in result.cases)
