"""The tables in docs/benchmarks.md and the chart next to them, made from the latest results."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import chart, record
from benchmarks.figures import Interval, rounded
from benchmarks.lab import Size
from benchmarks.record import Record
from benchmarks.results import Case

BEGIN, END = "<!-- ratios: written by `make report` -->", "<!-- end of ratios -->"

COMMAND = {Size.FULL: "make bench", Size.QUICK: "make bench QUICK=1", Size.TINY: "python -m benchmarks all --tiny"}

RESULTS_HEAD = (
    "| case | uplinkd | of the limit | of the best peer |",
    "| --- | --- | --- | --- |",
)
TARGETS_HEAD = (
    "| case | target | measured | wanted | reached |",
    "| --- | --- | --- | --- | --- |",
)


def latest(directory: Path, names: Sequence[str]) -> list[Record]:
    """The records in `directory`, of full size if there are any, else quick ones.

    Raises FileNotFoundError if there are none at all.
    """
    found = []
    for name in names:
        paths = [directory / f"{name}.{size.value}.json" for size in (Size.FULL, Size.QUICK)]
        found += [record.load(path) for path in paths if path.exists()][:1]
    if not found:
        raise FileNotFoundError(f"{directory} holds no results: run make bench")
    return found


def publish(records: Sequence[Record], page: Path, picture: Path) -> None:
    """Write the tables between their markers in the page, and the chart. Raises ValueError if a marker is missing."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: add the lines {BEGIN} and {END} where the tables belong")
    page.write_text(f"{before}{BEGIN}\n{tables(records)}\n{END}{after}", encoding="utf-8")
    picture.write_text(chart.draw(records), encoding="utf-8")


def tables(records: Sequence[Record]) -> str:
    """Markdown: a line with date, command and machine, one row per case, then one row per target."""
    lines = []
    for size in Size:
        own = [each for each in records if each.size is size]
        if own:
            names = ", ".join(f"`{each.result.name}`" for each in own)
            dates = " and ".join(sorted({each.date for each in own}))
            machines = " and ".join(sorted({each.machine for each in own}))
            lines.append(f"{names}: {dates}, `{COMMAND[size]}`, {machines}.")
    lines += ["", *RESULTS_HEAD, *(row for each in records for row in _results(each))]
    targets = [row for each in records for row in _targets(each)]
    if targets:
        lines += ["", "### Targets", "", *TARGETS_HEAD, *targets]
    return "\n".join(lines)


def _results(each: Record) -> Iterator[str]:
    for case in each.result.cases:
        limit = _ratio(case.limit.ratio) if case.limit is not None else "-"
        figure = f"{rounded(case.project.median, 4)} {case.unit}"
        yield f"| {each.result.name} {case.name} | {figure} | {limit} | {_peer(case)} |"


def _targets(each: Record) -> Iterator[str]:
    for case in each.result.cases:
        for target in case.targets:
            wanted = f"{'≥' if target.at_least else '≤'} {rounded(target.bound, 3)}"
            reached = "yes" if target.met else "**no**"
            name = f"{each.result.name} {case.name}"
            yield f"| {name} | {target.what} | {rounded(target.measured, 3)} | {wanted} | {reached} |"


def _peer(case: Case) -> str:
    counting = {name: rival for name, rival in case.peers.items() if rival.counts}
    if not counting:
        return "-"
    name = min(counting, key=lambda name: counting[name].ratio.median)
    return f"{_ratio(counting[name].ratio)} ({name})"


def _ratio(ratio: Interval) -> str:
    return f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio.median < 100 else f"{ratio.median:.0f}"
