"""`python -m benchmarks NAME [--quick] [--json]`: measure, print the results, and check them against their targets."""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from benchmarks import record, report, table
from benchmarks.lab import Lab, Size
from benchmarks.results import Result

NAMES = ("ingest", "frames", "fleet", "download", "growth", "lossy")

ROOT = Path(__file__).parent.parent

BUILD = ROOT / "build" / "benchmarks"
"""Next to the sources, because /tmp may be in memory and the benchmarks measure the disk."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name", choices=[*NAMES, "all", "report"], help="report: write the tables and the chart in docs/"
    )
    parser.add_argument("--quick", action="store_const", dest="size", const=Size.QUICK, help="same cases, fewer bytes")
    parser.add_argument("--tiny", action="store_const", dest="size", const=Size.TINY, help="only check that it runs")
    parser.add_argument("--json", action="store_true", help="end with the result as one line of JSON")
    parser.set_defaults(size=Size.FULL)
    chosen = parser.parse_args(arguments)
    if chosen.name == "report":
        docs = ROOT / "docs"
        report.publish(report.latest(BUILD, NAMES), docs / "benchmarks.md", docs / "benchmarks.svg")
        return 0
    for name in NAMES if chosen.name == "all" else (chosen.name,):
        result = measure(name, chosen.size)
        print(table.text(result), flush=True)
        record.save(BUILD, result, chosen.size)
        if chosen.json:
            print(result.as_line(), flush=True)
    return 0


def measure(name: str, size: Size) -> Result:
    """Run one benchmark in its own directory. Raises process.Failed when a program fails."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=f"{name}-") as directory:
        lab = Lab(size, Path(directory), lambda line: print(line, file=sys.stderr, flush=True))
        result: Result = importlib.import_module(f"benchmarks.{name}").run(lab)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
