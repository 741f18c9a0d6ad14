"""Results as files, with their date and machine. The report's tables and chart are made from them."""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.figures import Interval
from benchmarks.lab import Size
from benchmarks.results import Case, Result, Rival, Target


@dataclass(frozen=True, slots=True)
class Record:
    """A result, with the size, date and machine of its measurement."""

    result: Result
    size: Size
    date: str
    machine: str


def save(directory: Path, result: Result, size: Size) -> None:
    """Write a result to `directory`, replacing an earlier one of the same benchmark and size."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    about = {"date": today, "machine": machine.describe(directory)}
    text = json.dumps(result.as_json() | about, indent=1)
    (directory / f"{result.name}.{size.value}.json").write_text(text + "\n")


def load(path: Path) -> Record:
    """Read what `save` wrote."""
    found = json.loads(path.read_text())
    cases = [
        Case(
            name=case["name"],
            unit=case["unit"],
            higher_is_better=case["higher_is_better"],
            project=Interval(**case["project"]),
            promise=case["promise"],
            limit=_rival(case["limit"]) if case["limit"] is not None else None,
            peers={name: _rival(peer) for name, peer in case["peers"].items()},
            beside=case["beside"],
            targets=[
                Target(target["what"], target["measured"], target["bound"], target["at_least"])
                for target in case["targets"]
            ],
        )
        for case in found["cases"]
    ]
    size = Size(path.name.removesuffix(".json").rpartition(".")[2])
    return Record(Result(found["name"], cases, found["missing_peers"]), size, found["date"], found["machine"])


def _rival(found: dict[str, dict[str, float]]) -> Rival:
    figure, ratio = Interval(**found["figure"]), Interval(**found["ratio"])
    return Rival(figure, ratio, str(found["promise"]), bool(found["counts"]), found["beside"])
