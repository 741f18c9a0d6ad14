"""`python -m benchmarks NAME [--quick] [--json]`: measure, tell, and say whether what must be reached was reached."""

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
"""Beside the sources, so on the disk that is measured, and not in a /tmp that may be memory."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all", "report"], help="report: write the tables and chart in docs/")
    parser.add_argument("--quick", action="store_const", dest="size", const=Size.QUICK, help="same cases, fewer bytes")
    parser.add_argument("--tiny", action="store_const", dest="size", const=Size.TINY, help="does it run at all?")
    parser.add_argument("--json", action="store_true", help="the last line is the result as one JSON object")
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
    """Run one benchmark in a directory of its own. Raises process.Failed when a program does not do its part."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=f"{name}-") as directory:
        lab = Lab(size, Path(directory), lambda line: print(line, file=sys.stderr, flush=True))
        result: Result = importlib.import_module(f"benchmarks.{name}").run(lab)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
