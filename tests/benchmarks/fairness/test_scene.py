"""The bounds: what an outcome breaks."""

from dataclasses import replace

import pytest

from benchmarks.fairness.scene import Outcome
from tests.support.fairness_outcomes import GOOD, MEASURED, QUICK, SCENE, SLOW


def test_a_quiet_scene_breaks_nothing() -> None:
    assert GOOD.faults() == []
    assert (GOOD.p99_ms, GOOD.over_mib, GOOD.refused, GOOD.share) == (12, 0, 0, 1)


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (replace(GOOD, beside=replace(MEASURED, small=SLOW)), "p99 of ACK is 300 ms, not 120 (alone 12.0)"),
        (replace(GOOD, beside=replace(MEASURED, large=SLOW)), "p99 of ACK of 32 KiB is 300 ms, not 120 (alone 12.0)"),
        (
            replace(GOOD, alone=replace(MEASURED, small=SLOW), beside=replace(MEASURED, small=SLOW)),
            "p99 of ACK is 300 ms, not 250 (alone 300.0)",
        ),
        (
            replace(GOOD, beside=replace(MEASURED, whole=replace(QUICK, p99_ms=5000))),
            "p99 of FINISHED is 5000 ms, not 500",
        ),
        (replace(GOOD, peak_mib=300), "memory is 92 MiB above start and pool, not 64"),
        (replace(GOOD, growth_mib=20), "memory still grows, by 20 MiB"),
        (replace(GOOD, beside=replace(MEASURED, welcomed=90)), "91% of legitimate clients are served, not 95%"),
        (replace(GOOD, beside=replace(MEASURED, connected=105)), "50% of legitimate clients are served, not 95%"),
        (replace(GOOD, beside=replace(MEASURED, cut=21)), "90% of legitimate clients are served, not 95%"),
        (replace(GOOD, succeeded=0), "91% of legitimate clients are served, not 95%"),
        (replace(GOOD, stop_s=9), "stopping took 9.0 s, not 5"),
        (replace(GOOD, status=1), "the daemon's exit status is 1"),
        (replace(GOOD, tracebacks=2), "2 tracebacks in the daemon's log"),
    ],
)
def test_a_broken_bound_is_named(outcome: Outcome, fault: str) -> None:
    assert outcome.faults() == [fault]


def test_many_hostile_connections_may_cost_a_second() -> None:
    crowded = replace(GOOD, scene=replace(SCENE, is_many=True))
    assert replace(crowded, beside=replace(MEASURED, small=SLOW)).faults() == []
    assert len(replace(crowded, beside=replace(MEASURED, small=replace(SLOW, p99_ms=1001))).faults()) == 1


def test_whoever_was_cut_or_refused_is_counted() -> None:
    outcome = replace(GOOD, succeeded=9, beside=replace(MEASURED, welcomed=98, cut=3, refused=4))
    assert outcome.refused == 1 + 2 + 3 + 4
