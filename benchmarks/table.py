"""Results as text for a terminal."""

from collections.abc import Iterator

from benchmarks.figures import Interval, rounded
from benchmarks.results import Case, Result, Rival


def text(result: Result) -> str:
    """All cases of a benchmark, one paragraph each."""
    lines = [f"== {result.name}"]
    for case in result.cases:
        lines += _case(case)
    lines += [f"missing: {peer} is not installed (run make peers)" for peer in result.missing]
    return "\n".join(lines)


def _case(case: Case) -> Iterator[str]:
    better = "higher" if case.higher_is_better else "lower"
    yield f"{case.name} ({case.unit}, {better} is better)"
    yield f"  {'uplinkd':22} {_interval(case.project):>34}   {case.promise}"
    if case.limit is not None:
        yield _rival("limit", case.limit)
    for name, peer in case.peers.items():
        yield _rival(name if peer.counts else f"({name})", peer)
    for name, value in case.beside.items():
        yield f"  {name}: {rounded(value, 4)}"
    for target in case.targets:
        relation = ">=" if target.at_least else "<="
        verdict = "reached" if target.met else "NOT REACHED"
        yield f"  {verdict}: {target.what}: {rounded(target.measured, 4)} {relation} {rounded(target.bound, 4)}"


def _rival(name: str, rival: Rival) -> str:
    ratio = f"x{_interval(rival.ratio)}"
    return f"  {name:22} {_interval(rival.figure):>34}   {ratio:28} {rival.promise}"


def _interval(value: Interval) -> str:
    return f"{rounded(value.median, 4)} [{rounded(value.low, 4)}, {rounded(value.high, 4)}]"
