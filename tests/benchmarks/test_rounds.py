"""When each contestant is measured, and which measurements count."""

import threading
from functools import partial
from pathlib import Path

import pytest

from benchmarks.lab import Lab, Size
from benchmarks.rounds import Contestant, Sample, Series, play, play_at_once
from tests.support.deadlines import DEADLINE_S

NAMES = ("a", "b", "c", "d")


class Players:
    """Contestants that record whose turn it was; each figure is the number of the turn."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.reported: list[str] = []

    def contestants(self) -> list[Contestant]:
        return [Contestant(name, "nothing", partial(self._measure, name)) for name in NAMES]

    def lab(self, size: Size = Size.FULL) -> Lab:
        return Lab(size, Path(), self.reported.append)

    def rounds(self) -> list[list[str]]:
        return [self.turns[at : at + len(NAMES)] for at in range(0, len(self.turns), len(NAMES))]

    def _measure(self, name: str) -> Sample:
        self.turns.append(name)
        return Sample(len(self.turns), {"turn": len(self.turns)})


def _played(case: str) -> Players:
    players = Players()
    play(players.lab(), case, "turns", players.contestants())
    return players


def test_every_contestant_is_measured_once_a_round_after_a_warm_up() -> None:
    players = _played("case")
    assert len(players.rounds()) == 1 + players.lab().rounds
    assert all(sorted(turns) == sorted(NAMES) for turns in players.rounds())


def test_rounds_differ_in_their_order() -> None:
    assert len({tuple(turns) for turns in _played("case").rounds()}) > 1


def test_the_order_is_the_same_in_every_run_and_another_in_another_case() -> None:
    assert _played("case").turns == _played("case").turns
    assert _played("case").turns != _played("other").turns


def test_the_warm_up_does_not_count() -> None:
    players = Players()
    series = play(players.lab(Size.TINY), "case", "turns", players.contestants())
    counted = sorted(value for each in series for value in each.values)
    assert counted == list(range(len(NAMES) + 1, 3 * len(NAMES) + 1))


def test_each_contestant_gets_its_own_samples_in_the_order_of_the_rounds() -> None:
    players = Players()
    series = play(players.lab(), "case", "turns", players.contestants())
    assert tuple(each.contestant.name for each in series) == NAMES
    for each in series:
        assert [players.turns[int(value) - 1] for value in each.values] == [each.contestant.name] * 5
        assert each.values == sorted(each.values) == each.beside("turn")


def test_every_turn_is_reported_with_its_figure() -> None:
    players = _played("case")
    assert len(players.reported) == len(players.turns)
    assert players.reported[0].startswith(f"case: warm-up: {players.turns[0]}: 1 turns")
    assert players.reported[-1].startswith(f"case: round 5/5: {players.turns[-1]}: 24 turns")


def test_play_at_once_measures_all_contestants_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=DEADLINE_S)

    def measure(figure: float) -> Sample:
        both.wait()
        return Sample(figure)

    contestants = [
        Contestant("a", "nothing", lambda: measure(1.5)),
        Contestant("b", "nothing", lambda: measure(2.5)),
    ]
    reported: list[str] = []
    series = play_at_once(Lab(Size.TINY, Path(), reported.append), "case", "s", contestants)
    assert series == [
        Series(contestants[0], (Sample(1.5), Sample(1.5))),
        Series(contestants[1], (Sample(2.5), Sample(2.5))),
    ]
    assert reported == ["case: round 1/2: a 1.5, b 2.5 s", "case: round 2/2: a 1.5, b 2.5 s"]


def test_a_failing_contestant_fails_the_whole_run() -> None:
    def fail() -> Sample:
        raise OSError("the disk is full")

    for run in (play, play_at_once):
        with pytest.raises(OSError, match="disk is full"):
            run(Lab(Size.TINY, Path(), lambda _: None), "case", "s", [Contestant("a", "nothing", fail)])
