"""A device needs none of the server's packages: what each room imports stands where pyproject.toml says it belongs."""

import sys
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.source_modules import MODULES, ROOMS, imports_of, top


def declared(extra: str) -> set[str]:
    """The packages that an installation with this extra asks for by itself; "" is without any."""
    asked = map(Requirement, requires("uplinkd") or ())
    return {
        canonicalize_name(each.name) for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})
    }


def imported(*rooms: str) -> set[str]:
    """The packages, not ours and not Python's, that these rooms import."""
    providers = packages_distributions()
    names = {top(found.target) for each in MODULES.values() if each.room in rooms for found in imports_of(each)}
    foreign = names - set(ROOMS) - sys.stdlib_module_names
    return {canonicalize_name(providers[name][0]) for name in foreign}


def test_the_base_is_what_a_device_imports() -> None:
    assert declared("") == imported("device", "protocol")


def test_the_extra_is_what_the_server_imports_beyond_it() -> None:
    # pyjwt verifies RS256 and its like by cryptography, which is imported too.
    assert declared("server") == imported(*ROOMS)
