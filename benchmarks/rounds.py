"""A B C A B C …: contestants in turn, so that a drift of the machine meets all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
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
    """Measure all of them in turn, a round that does not count first, in which they warm up."""
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in contestants}
    for number in range(lab.rounds + 1):
        for contestant in contestants:
            began = time.monotonic()
            sample = contestant.measure()
            label = f"round {number}/{lab.rounds}" if number else "warm-up"
            took = time.monotonic() - began
            lab.say(f"{case}: {label}: {contestant.name}: {sample.value:.4g} {unit} ({took:.1f} s)")
            if number:
                samples[contestant.name].append(sample)
    return [Series(contestant, tuple(samples[contestant.name])) for contestant in contestants]
