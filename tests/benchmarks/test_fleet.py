import json
import math
from pathlib import Path

import pytest

from benchmarks import fleet, native, process
from benchmarks.__main__ import measure
from benchmarks.lab import Size
from benchmarks.peers import mosquitto
from benchmarks.results import Case, Result
from tests.support.deadlines import DEADLINE_S


@pytest.fixture(scope="module")
def result() -> Result:
    return measure("fleet", Size.TINY)


@pytest.fixture(scope="module")
def cases(result: Result) -> dict[str, Case]:
    return {case.name: case for case in result.cases}


def test_every_case_is_measured_plain_and_over_tls(cases: dict[str, Case]) -> None:
    assert list(cases) == ["memory", "resume", "append", "pause", "memory-tls", "resume-tls", "append-tls"]
    for case in cases.values():
        assert case.project.median > 0
        assert all(math.isfinite(value) for value in case.beside.values())


def test_the_peer_is_compared_or_named_as_missing(result: Result, cases: dict[str, Case]) -> None:
    if mosquitto.missing() is not None:
        assert result.missing == ("mosquitto",)
        return
    assert not result.missing
    for name in ("memory", "resume"):
        assert cases[name].peers["mosquitto"].ratio.median > 0


def test_the_limit_of_an_append_is_the_disks_own_sync(cases: dict[str, Case]) -> None:
    limit = cases["append"].limit
    assert limit is not None
    (target,) = cases["append"].targets
    assert target.bound == fleet.latency_ms_max(limit.figure.median)
    assert limit.beside["p50_ms"] <= cases["append"].project.median


def test_only_some_cases_have_targets(cases: dict[str, Case]) -> None:
    assert {name for name, case in cases.items() if case.targets} == {"memory", "resume", "append", "pause"}


def test_the_result_is_json(result: Result) -> None:
    assert json.loads(result.as_line())["name"] == "fleet"


def test_the_sync_program_leaves_no_file(tmp_path: Path) -> None:
    words = [str(native.program("limit/sync.c")), str(tmp_path / "synced"), "0.1"]
    result = json.loads(process.run(words, timeout_s=DEADLINE_S))
    assert result["syncs"] > 0
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert not list(tmp_path.iterdir())
