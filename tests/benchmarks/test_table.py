"""A result as text for the terminal."""

import dataclasses

from benchmarks import table
from benchmarks.results import Target
from tests.support.benchmark_results import case, result, rival


def test_every_contestant_has_a_line_with_figure_ratio_and_promise() -> None:
    text = table.text(result(case("one", rival(0.5), {"nginx": rival(2)}, figure=12_345)))
    name, heading, project, limit, nginx, beside = text.splitlines()
    assert (name, heading) == ("== ingest", "one (MiB/s, higher is better)")
    assert project.split() == ["uplinkd", "12,340", "[11,110,", "13,580]", "durable"]
    assert limit.split() == ["limit", "200", "[180,", "220]", "x0.5", "[0.45,", "0.55]", "synced"]
    assert nginx.split()[0] == "nginx"
    assert beside == "  cpu_s: 1.5"


def test_times_are_better_when_lower() -> None:
    timed = dataclasses.replace(case("one"), unit="ms", higher_is_better=False)
    assert "one (ms, lower is better)" in table.text(result(timed))


def test_a_peer_that_does_not_count_is_in_parentheses() -> None:
    assert "  (lax) " in table.text(result(case("one", peers={"lax": rival(0.5, counts=False)})))


def test_targets_say_whether_they_were_reached() -> None:
    targets = [Target("of the limit", 0.91, 0.9), Target("pause, ms", 60, 50, at_least=False)]
    assert table.text(result(case("one", targets=targets))).splitlines()[-2:] == [
        "  reached: of the limit: 0.91 >= 0.9",
        "  NOT REACHED: pause, ms: 60 <= 50",
    ]


def test_missing_peers_are_named_with_what_to_do() -> None:
    text = table.text(result(case("one"), missing=["mosquitto"]))
    assert text.splitlines()[-1] == "missing: mosquitto is not installed (run make peers)"
