"""Contestants in turn, round after round, so that a drift of the machine meets all of them alike."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.lab import Lab


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contestant did in one round: the figure that is compared, and others beside it, by name with unit."""

    value: float
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who can be measured. `promise` says what it was configured to promise when the clock stops."""

    name: str
    promise: str
    measure: Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Series:
    """A contestant's samples, one a round."""

    contestant: Contestant
    samples: tuple[Sample, ...]

    @property
    def values(self) -> list[float]:
        return [sample.value for sample in self.samples]

    def beside(self, name: str) -> list[float]:
        return [sample.beside[name] for sample in self.samples]


def play(lab: Lab, case: str, unit: str, contestants: Sequence[Contestant]) -> list[Series]:
    """Measure all of them in turn, a round that does not count first, in which they warm up.

    Each round has an order of its own, the same in every run: what one leaves behind, such as memory that a hypervisor
    takes back or a disk that is still busy, would otherwise always be at the cost of the same next one.
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
            lab.say(f"{case}: {label}: {contestant.name}: {sample.value:.4g} {unit} ({took:.1f} s)")
            if number:
                samples[contestant.name].append(sample)
    return [Series(contestant, tuple(samples[contestant.name])) for contestant in contestants]


def play_at_once(lab: Lab, case: str, unit: str, contestants: Sequence[Contestant]) -> list[Series]:
    """Measure all of them at the same time, round after round: for those that share nothing that could run short."""
    samples: list[tuple[Sample, ...]] = []
    with ThreadPoolExecutor(len(contestants)) as pool:
        for number in range(1, lab.rounds + 1):
            samples.append(tuple(pool.map(lambda contestant: contestant.measure(), contestants)))
            figures = zip(contestants, samples[-1], strict=True)
            told = ", ".join(f"{contestant.name} {sample.value:.4g}" for contestant, sample in figures)
            lab.say(f"{case}: round {number}/{lab.rounds}: {told} {unit}")
    return [
        Series(contestant, tuple(own)) for contestant, own in zip(contestants, zip(*samples, strict=True), strict=True)
    ]
