"""Records are loaded as they were saved."""

import datetime
from pathlib import Path

import pytest

from benchmarks import machine, record
from benchmarks.lab import Size
from benchmarks.results import Target
from tests.support.benchmark_results import case, result, rival

RESULT = result(
    case(
        "one",
        rival(0.9),
        {"nginx": rival(2), "lax": rival(0.5, counts=False)},
        [Target("of the limit", 0.9, 0.95), Target("CPU", 1.2, 1.5, at_least=False)],
    ),
    case("alone"),
    missing=["mosquitto"],
)


@pytest.mark.parametrize("size", list(Size))
def test_a_result_is_loaded_as_it_was_saved(tmp_path: Path, size: Size) -> None:
    before = datetime.datetime.now(datetime.UTC).date().isoformat()
    record.save(tmp_path, RESULT, size)
    [path] = tmp_path.iterdir()
    loaded = record.load(path)
    assert loaded.result.as_json() == RESULT.as_json()
    assert loaded.size is size
    assert before <= loaded.date <= datetime.datetime.now(datetime.UTC).date().isoformat()
    assert loaded.machine == machine.describe(tmp_path)


def test_a_later_result_replaces_an_earlier_one_of_the_same_size(tmp_path: Path) -> None:
    record.save(tmp_path, RESULT, Size.FULL)
    record.save(tmp_path, RESULT, Size.QUICK)
    record.save(tmp_path, result(case("new")), Size.FULL)
    cases = {path.name: [each.name for each in record.load(path).result.cases] for path in tmp_path.iterdir()}
    assert cases == {"ingest.full.json": ["new"], "ingest.quick.json": ["one", "alone"]}
