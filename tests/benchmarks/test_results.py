"""Cases compared with their rivals, and the result as JSON with its worst case at the top."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import benchmarks.__main__ as program
from benchmarks.lab import Lab
from benchmarks.results import Result, Target, compare
from benchmarks.rounds import Contestant, Sample, Series
from tests.support.benchmark_results import case, result, rival


def _series(name: str, *values: float) -> Series:
    samples = tuple(Sample(value, {"cpu_s": value / 10}) for value in values)
    return Series(Contestant(name, f"{name} syncs", lambda: Sample(0)), samples)


def test_the_first_series_is_the_projects_and_the_rest_are_its_rivals() -> None:
    played = [_series("uplinkd", 30, 20, 40), _series("limit", 40, 40, 40), _series("nginx", 10, 10, 10)]
    found = compare("one", "MiB/s", played, limit="limit")
    assert (found.project.median, found.promise, found.beside) == (30, "uplinkd syncs", {"cpu_s": 3})
    assert found.limit is not None
    assert (found.limit.figure.median, found.limit.ratio.median, found.limit.promise) == (40, 0.75, "limit syncs")
    assert list(found.peers) == ["nginx"]
    assert found.peers["nginx"].ratio.median == 3
    assert found.peers["nginx"].beside == {"cpu_s": 1}


def test_the_lower_time_is_ahead() -> None:
    found = compare("one", "s", [_series("uplinkd", 2, 2), _series("nginx", 3, 3)], higher_is_better=False)
    assert found.peers["nginx"].ratio.median == 1.5
    assert found.limit is None


def test_the_median_of_an_even_number_of_rounds_lies_between_the_two_in_the_middle() -> None:
    assert compare("one", "s", [_series("uplinkd", 10, 20)]).beside == {"cpu_s": 1.5}


def test_a_rival_that_does_not_count_is_listed_but_is_never_the_best_peer() -> None:
    played = [_series("uplinkd", 10, 10), _series("lax", 100, 100), _series("durable", 5, 5)]
    found = compare("one", "MiB/s", played, uncounted=frozenset({"lax"}))
    assert found.peers["lax"].ratio.median == 0.1
    assert found.best_peer == found.peers["durable"].ratio


def test_the_best_peer_is_the_one_that_comes_closest() -> None:
    assert case("one", peers={"far": rival(9), "near": rival(2)}).best_peer == rival(2).ratio
    assert case("one", peers={"lax": rival(0.5, counts=False)}).best_peer is None


def test_the_worst_case_is_at_the_top() -> None:
    good = case("good", rival(0.95), {"nginx": rival(1.5)}, figure=300)
    bad = case("bad", rival(0.7), {"nginx": rival(4)}, figure=70)
    found = result(good, bad).as_json()
    assert {name: found[name] for name in ("name", "case", "unit", "project")} == {
        "name": "ingest",
        "case": "bad",
        "unit": "MiB/s",
        "project": 70,
    }
    assert found["limit"] == pytest.approx(100 / 0.7)
    assert found["peers"] == {"nginx": 25}
    assert (found["ratio_to_limit"], found["ratio_to_best_peer"]) == (0.7, 1.5)


def test_a_limit_without_a_target_is_not_the_worst_case() -> None:
    counted, uncounted = case("counted", rival(0.9)), case("uncounted", rival(0.1, counts=False))
    assert result(uncounted, counted).as_json()["ratio_to_limit"] == 0.9
    assert result(uncounted).as_json()["ratio_to_limit"] == 0.1


def test_without_any_rival_the_ratios_are_null() -> None:
    found = result(case("alone")).as_json()
    assert (found["limit"], found["peers"]) == (None, {})
    assert (found["ratio_to_limit"], found["ratio_to_best_peer"]) == (None, None)


def test_each_case_has_its_own_ratios_and_targets() -> None:
    targets = [Target("of the limit", 0.95, 0.9), Target("CPU", 1.6, 1.5, at_least=False)]
    line = result(case("one", rival(0.95), {"nginx": rival(2)}, targets), case("other")).as_line()
    one, other = json.loads(line)["cases"]
    assert (one["name"], one["ratio_to_limit"], one["ratio_to_best_peer"]) == ("one", 0.95, 2)
    assert [target["met"] for target in one["targets"]] == [True, False]
    assert (other["name"], other["ratio_to_limit"], other["ratio_to_best_peer"]) == ("other", None, None)


@pytest.mark.parametrize(
    ("measured", "at_least", "met"), [(1, True, True), (0.9, True, False), (1, False, True), (1.1, False, False)]
)
def test_a_target_is_met_at_its_bound(measured: float, at_least: bool, met: bool) -> None:
    assert Target("ratio", measured, 1, at_least).met is met


def test_peers_that_are_missing_are_named() -> None:
    assert result(case("one"), missing=["mosquitto"]).as_json()["missing_peers"] == ["mosquitto"]


def test_a_result_without_cases_is_an_error() -> None:
    with pytest.raises(ValueError, match="no case was measured"):
        result().as_json()


def test_the_last_line_of_the_command_is_the_result_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(lab: Lab) -> Result:
        lab.report("round 1")
        return result(case("one", rival(0.9), {"nginx": rival(2)}))

    benchmark = ModuleType("benchmarks.ingest")
    monkeypatch.setattr(benchmark, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "benchmarks.ingest", benchmark)
    monkeypatch.setattr(program, "BUILD", tmp_path)
    assert program.main(["ingest", "--tiny", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]).keys() >= {
        *("name", "unit", "project", "limit", "peers"),
        *("ratio_to_limit", "ratio_to_best_peer", "cases"),
    }
    assert err == "round 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ingest.tiny.json"]
