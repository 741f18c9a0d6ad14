"""Reads the lock files in requirements/."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = Path(__file__).parents[2] / "requirements"


@dataclass(frozen=True, slots=True)
class Pin:
    """A locked package and its locked extras."""

    name: str
    extras: frozenset[str]


def pins(text: str) -> list[Pin]:
    """The packages that a lock file installs in this environment: those whose markers hold."""
    lines = (line.removesuffix("\\").strip() for line in text.splitlines())
    requirements = [Requirement(line) for line in lines if line and not line.startswith(("#", "--"))]
    return [
        Pin(canonicalize_name(each.name), frozenset(each.extras))
        for each in requirements
        if each.marker is None or each.marker.evaluate()
    ]


def missing(locked: Iterable[Pin], asks: Callable[[str], Iterable[str]]) -> list[str]:
    """Packages and extras that locked packages require but the lock lacks. `asks` gives a package's requirements."""
    extras: dict[str, frozenset[str]] = {}
    for pin in locked:
        extras[pin.name] = extras.get(pin.name, frozenset()) | pin.extras
    lacking = []
    for name, chosen in extras.items():
        for wanted in map(Requirement, asks(name)):
            contexts = [{"extra": extra} for extra in ("", *chosen)]
            if wanted.marker is not None and not any(wanted.marker.evaluate(context) for context in contexts):
                continue
            target = canonicalize_name(wanted.name)
            if not set(wanted.extras) <= extras.get(target, frozenset()) or target not in extras:
                lacking.append(f"{name} asks for {wanted.name}{sorted(wanted.extras) or ''}")
    return lacking
