"""Benchmark results, for tests of the code that reads them."""

from collections.abc import Mapping, Sequence

from benchmarks.figures import Interval
from benchmarks.results import Case, Result, Rival, Target


def around(median: float) -> Interval:
    return Interval(median, median * 0.9, median * 1.1)


def rival(ratio: float, counts: bool = True) -> Rival:
    """A rival. The project's figure is `ratio` times as good as the rival's."""
    return Rival(around(100 / ratio), around(ratio), "synced", counts, {"cpu_s": 2.5})


def case(
    name: str,
    limit: Rival | None = None,
    peers: Mapping[str, Rival] | None = None,
    targets: Sequence[Target] = (),
    figure: float = 100,
) -> Case:
    return Case(name, "MiB/s", True, around(figure), "durable", limit, peers or {}, {"cpu_s": 1.5}, targets)


def result(*cases: Case, missing: Sequence[str] = ()) -> Result:
    return Result("ingest", cases, missing)
