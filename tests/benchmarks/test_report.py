"""The tables in docs/benchmarks.md: their place and their content."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks import record, report
from benchmarks.lab import Size
from benchmarks.record import Record
from benchmarks.results import Case, Target
from tests.support.benchmark_results import case, result, rival


def _record(*cases: Case, size: Size = Size.FULL) -> Record:
    return Record(result(*cases), size, "2025-01-31", "2 cores of Some CPU")


def _row(each: Case) -> str:
    return report.tables([_record(each)]).splitlines()[-1]


def test_the_tables_are_written_between_their_markers_and_the_rest_is_kept(tmp_path: Path) -> None:
    page, picture = tmp_path / "benchmarks.md", tmp_path / "chart.svg"
    records = [_record(case("one", rival(0.9)))]
    page.write_text(f"Before é\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        report.publish(records, page, picture)
        assert page.read_text(encoding="utf-8") == (
            f"Before é\n{report.BEGIN}\n{report.tables(records)}\n{report.END}\nafter\n"
        )
    assert picture.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    "text", ["", report.BEGIN, report.END, f"{report.END}\n{report.BEGIN}"], ids=["none", "begin", "end", "reversed"]
)
def test_without_markers_nothing_is_written(tmp_path: Path, text: str) -> None:
    page, picture = tmp_path / "benchmarks.md", tmp_path / "chart.svg"
    page.write_text(text)
    with pytest.raises(ValueError, match="where the tables belong"):
        report.publish([_record(case("one"))], page, picture)
    assert page.read_text() == text
    assert not picture.exists()


def test_full_results_are_preferred_to_quick_ones_and_tiny_ones_are_ignored(tmp_path: Path) -> None:
    kept = {"ingest": [Size.FULL, Size.QUICK], "frames": [Size.QUICK, Size.TINY], "fleet": [Size.TINY]}
    for name, sizes in kept.items():
        for size in sizes:
            record.save(tmp_path, dataclasses.replace(result(case("one")), name=name), size)
    found = report.latest(tmp_path, ["frames", "ingest", "fleet", "growth"])
    assert [(each.result.name, each.size) for each in found] == [("frames", Size.QUICK), ("ingest", Size.FULL)]


def test_without_results_there_is_nothing_to_publish(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make bench"):
        report.latest(tmp_path, ["ingest"])


def test_date_machine_and_command_stand_above_the_tables() -> None:
    assert report.tables([_record(case("one"))]).startswith(
        "`ingest`: 2025-01-31, `make bench`, 2 cores of Some CPU.\n"
    )


def test_quick_results_are_labelled_as_quick() -> None:
    first, second, *_ = report.tables([_record(case("one")), _record(case("one"), size=Size.QUICK)]).splitlines()
    assert "`make bench`" in first
    assert "`make bench QUICK=1`" in second


def test_every_date_and_machine_is_named() -> None:
    later = dataclasses.replace(_record(case("one")), date="2025-02-01", machine="4 cores of Another")
    first = report.tables([later, _record(case("one"))]).splitlines()[0]
    assert "2025-01-31 and 2025-02-01" in first
    assert "2 cores of Some CPU and 4 cores of Another" in first


def test_a_row_has_the_figure_and_its_ratios_with_intervals() -> None:
    row = _row(case("one", rival(0.9), {"nginx": rival(4), "rsync": rival(2)}, figure=123_456))
    assert row == "| ingest one | 123,500 MiB/s | 0.90 [0.81, 0.99] | 2.00 [1.80, 2.20] (rsync) |"


def test_without_rivals_that_count_a_row_claims_no_ratio() -> None:
    assert _row(case("one", peers={"lax": rival(0.5, counts=False)})) == "| ingest one | 100 MiB/s | - | - |"


def test_targets_have_a_table_of_their_own() -> None:
    targets = [Target("of the limit", 0.91, 0.9), Target("resumes/s", 3110, 5000), Target("ms", 60, 50, at_least=False)]
    lines = report.tables([_record(case("one", targets=targets))]).splitlines()
    assert lines[lines.index("### Targets") + 4 :] == [
        "| ingest one | of the limit | 0.91 | ≥ 0.9 | yes |",
        "| ingest one | resumes/s | 3,110 | ≥ 5,000 | **no** |",
        "| ingest one | ms | 60 | ≤ 50 | **no** |",
    ]


def test_without_targets_there_is_no_table_of_them() -> None:
    assert "Targets" not in report.tables([_record(case("one"))])
