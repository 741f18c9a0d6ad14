"""Measure contestants in turn, round after round, so that a drift of the machine affects all of them alike."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.lab import Lab


@dataclass(frozen=True, slots=True)
class Sample:
    """One contestant's result of one round: the figure to compare, and others beside it, by name with unit."""

    value: float
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something to measure. `promise` says how safe the bytes are when its clock stops."""

    name: str
    promise: str
    measure: Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Series:
    """A contestant's samples, one per round."""

    contestant: Contestant
    samples: tuple[Sample, ...]

    @property
    def values(self) -> list[float]:
        return [sample.value for sample in self.samples]

    def beside(self, name: str) -> list[float]:
        return [sample.beside[name] for sample in self.samples]


def play(lab: Lab, case: str, unit: str, contestants: Sequence[Contestant]) -> list[Series]:
    """Measure all contestants in turn. A first round, which does not count, warms them up.

    The order differs from round to round but is the same in every run. In a fixed order the same contestant would
    always pay for what its predecessor leaves, such as a busy disk or memory that a hypervisor takes back.
    """
    order, shuffled = list(contestants), random.Random(case)  # noqa: S311 - an order, not a secret
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in contestants}
    for number in range(lab.rounds + 1):
        shuffled.shuffle(order)
        for contestant in order:
            began = time.monotonic()
            sample = contestant.measure()
            label = f"round {number}/{lab.rounds}" if number else "warm-up"
            took = time.monotonic() - began
            lab.report(f"{case}: {label}: {contestant.name}: {sample.value:.4g} {unit} ({took:.1f} s)")
            if number:
                samples[contestant.name].append(sample)
    return [Series(contestant, tuple(samples[contestant.name])) for contestant in contestants]


def play_at_once(lab: Lab, case: str, unit: str, contestants: Sequence[Contestant]) -> list[Series]:
    """Measure all contestants at the same time, for those that share no scarce resource."""
    samples: list[tuple[Sample, ...]] = []
    with ThreadPoolExecutor(len(contestants)) as pool:
        for number in range(1, lab.rounds + 1):
            samples.append(tuple(pool.map(lambda contestant: contestant.measure(), contestants)))
            figures = zip(contestants, samples[-1], strict=True)
            text = ", ".join(f"{contestant.name} {sample.value:.4g}" for contestant, sample in figures)
            lab.report(f"{case}: round {number}/{lab.rounds}: {text} {unit}")
    return [
        Series(contestant, tuple(own)) for contestant, own in zip(contestants, zip(*samples, strict=True), strict=True)
    ]
