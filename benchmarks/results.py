"""The results of a benchmark, as values and as JSON."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import Interval, interval, paired_ratio
from benchmarks.rounds import Series


@dataclass(frozen=True, slots=True)
class Target:
    """A requirement: `measured` must be at least `bound`, or at most."""

    what: str
    measured: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


@dataclass(frozen=True, slots=True)
class Rival:
    """Another contestant's figure, and how many times better the project's is (above 1 the project is ahead)."""

    figure: Interval
    ratio: Interval
    promise: str
    counts: bool = True
    """False if it is shown only for comparison: a peer that promises less, or a limit without a target."""
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a benchmark. `beside` holds further medians of the project, by name with unit."""

    name: str
    unit: str
    higher_is_better: bool
    project: Interval
    promise: str
    limit: Rival | None = None
    peers: Mapping[str, Rival] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)
    targets: Sequence[Target] = ()

    @property
    def best_peer(self) -> Interval | None:
        """The ratio to the closest of the peers that count."""
        ratios = [rival.ratio for rival in self.peers.values() if rival.counts]
        return min(ratios, key=lambda ratio: ratio.median, default=None)


@dataclass(frozen=True, slots=True)
class Result:
    """All results of one benchmark. The ratios at the top of its JSON are those of the worst case."""

    name: str
    cases: Sequence[Case]
    missing: Sequence[str] = ()
    """Peers that were not measured because they are not installed."""

    def as_json(self) -> dict[str, object]:
        limits = [case for case in self.cases if case.limit is not None and case.limit.counts]
        peers = [case for case in self.cases if case.best_peer is not None]
        head = min(limits or self.cases, key=_to_limit) if limits or self.cases else None
        if head is None:
            raise ValueError(f"{self.name}: no case was measured")
        to_peer = min((case.best_peer.median for case in peers if case.best_peer is not None), default=None)
        return {
            "name": self.name,
            "case": head.name,
            "unit": head.unit,
            "project": head.project.median,
            "limit": head.limit.figure.median if head.limit is not None else None,
            "peers": {name: rival.figure.median for name, rival in head.peers.items()},
            "ratio_to_limit": head.limit.ratio.median if head.limit is not None else None,
            "ratio_to_best_peer": to_peer,
            "missing_peers": list(self.missing),
            "cases": [_case_as_json(case) for case in self.cases],
        }

    def as_line(self) -> str:
        return json.dumps(self.as_json(), separators=(",", ":"))


def _to_limit(case: Case) -> float:
    return case.limit.ratio.median if case.limit is not None else float("inf")


def _case_as_json(case: Case) -> dict[str, object]:
    fields = dataclasses.asdict(case)
    fields["targets"] = [dataclasses.asdict(target) | {"met": target.met} for target in case.targets]
    best = case.best_peer
    return fields | {
        "ratio_to_limit": case.limit.ratio.median if case.limit is not None else None,
        "ratio_to_best_peer": best.median if best is not None else None,
    }


def compare(
    name: str,
    unit: str,
    series: Sequence[Series],
    higher_is_better: bool = True,
    limit: str | None = None,
    uncounted: frozenset[str] = frozenset(),
) -> Case:
    """Make a case from the series of its rounds: the project's first, the limit's by its name, and the peers'."""
    ours, *others = series
    rivals = {
        other.contestant.name: Rival(
            interval(other.values),
            paired_ratio(ours.values, other.values, higher_is_better),
            other.contestant.promise,
            other.contestant.name not in uncounted,
            _medians(other),
        )
        for other in others
    }
    return Case(
        name,
        unit,
        higher_is_better,
        interval(ours.values),
        ours.contestant.promise,
        rivals.pop(limit) if limit is not None else None,
        rivals,
        _medians(ours),
    )


def _medians(series: Series) -> dict[str, float]:
    return {name: statistics.median(series.beside(name)) for name in series.samples[0].beside}
