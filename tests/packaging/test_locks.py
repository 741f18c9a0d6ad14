"""The lock files hold all that the locked packages ask for, extras too: pip refuses a lock that does not.

In hash mode pip looks for `coverage[toml]` beyond the pin of plain `coverage` as soon as a newer coverage is published.
"""

import re
import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.installs import PROJECT
from tests.support.lock_files import LOCKS, Pin, missing, pins

PEERS = LOCKS / "peers.txt"
PLACES = {PEERS: PROJECT / "build" / "peers" / "nats"}
"""What is not installed beside the tests."""


def installed(lock: Path) -> dict[str, Distribution]:
    place = PLACES.get(lock)
    found = distributions() if place is None else distributions(path=[str(place)])
    return {canonicalize_name(each.name): each for each in found}


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda lock: lock.name)
def test_all_that_a_locked_package_asks_for_is_locked(lock: Path) -> None:
    if lock in PLACES and not PLACES[lock].exists():
        pytest.skip("not installed: the peers of requirements/peers.txt (make peers)")
    found = installed(lock)
    locked = pins(lock.read_text())
    assert locked
    assert missing(locked, lambda name: found[name].requires or ()) == []


def test_the_locks_build_with_what_the_project_asks_for() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    [asked] = map(Requirement, project["build-system"]["requires"])
    [(name, version)] = re.findall(r"^(\S+)==(\S+)", (LOCKS / "build.txt").read_text(), re.MULTILINE)
    assert asked.name == name
    assert version in asked.specifier


# The rule sees what it forbids.


def asks(name: str) -> list[str]:
    return {
        "pytest-cov": ["coverage[toml]>=7", "colour; extra == 'testing'"],
        "coverage": ["tomli; extra == 'toml' and python_version >= '3'"],
    }.get(name, [])


def test_an_extra_that_is_asked_for_and_not_locked_is_seen() -> None:
    locked = pins("pytest-cov==6 \\\n    --hash=sha256:00\n    # via x\ncoverage==7 \\\ntomli==2 \\\n")
    assert missing(locked, asks) == ["pytest-cov asks for coverage['toml']"]


def test_a_package_that_only_an_extra_asks_for_is_seen() -> None:
    locked = pins("pytest-cov==6\ncoverage[toml]==7")
    assert missing(locked, asks) == ["coverage asks for tomli"]


def test_a_lock_with_all_of_it_passes() -> None:
    assert missing(pins("pytest-cov==6\ncoverage[toml]==7\ntomli==2"), asks) == []


def test_a_pin_for_other_machines_counts_for_nothing_here() -> None:
    assert pins("one==1 ; sys_platform == 'nowhere'\ntwo[x]==1") == [Pin("two", frozenset({"x"}))]
