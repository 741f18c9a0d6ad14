"""Who may import whom, and where: rooms, leaves, no cycles, and every import at the top of its module."""

import ast
from collections.abc import Callable

import pytest

from tests.architecture.modules import (
    ADAPTERS,
    MODULES,
    ROOMS,
    Import,
    Module,
    breaches,
    fake,
    imports_of,
    in_package,
    top,
)

MAY_IMPORT = {
    "protocol": frozenset[str](),
    "control": frozenset[str](),
    "device": frozenset({"protocol"}),
    "daemon": frozenset({"protocol"}),
}
"""The other rooms that a room may import."""

COMPOSITION_ROOT = "daemon.app"
"""The one module that may join the daemon and the control plane."""

LEAVES = frozenset({"auth", "catalog", "device_secrets", "keys", "logs", "metrics", "notify", "settings", "storage"})
"""Rooms of the daemon that import none of their siblings."""


def crosses_a_wall(module: Module, found: Import) -> bool:
    target = top(found.target)
    if target not in ROOMS or target == module.room or target in MAY_IMPORT[module.room]:
        return False
    return not (module.name == COMPOSITION_ROOT and target == "control")


def reaches_a_sibling(module: Module, found: Import) -> bool:
    parts, target = module.name.split("."), found.target
    if module.room != "daemon" or len(parts) < 2 or not in_package(target, "daemon"):
        return False
    if parts[1] == "adapters":
        return not in_package(target, ADAPTERS)
    if parts[1] not in LEAVES:
        return False
    return not (in_package(target, ADAPTERS) or in_package(target, f"daemon.{parts[1]}"))


def reaches_outside_of_the_rooms(module: Module, found: Import) -> bool:
    return top(found.target) in {"tests", "benchmarks"}


def test_all_rooms_are_read() -> None:
    assert {module.room for module in MODULES.values()} == set(ROOMS)


def test_rooms_import_only_what_the_design_allows() -> None:
    assert breaches(crosses_a_wall) == []


def test_leaves_of_the_daemon_import_no_sibling() -> None:
    assert breaches(reaches_a_sibling) == []


def test_no_room_imports_the_tests_or_the_benchmarks() -> None:
    assert breaches(reaches_outside_of_the_rooms) == []


def test_only_the_layouts_import_construct() -> None:
    users = breaches(lambda module, found: top(found.target) == "construct" and module.name != "protocol.layouts")
    assert users == []


def test_there_is_no_cycle_of_imports() -> None:
    below = {
        name: {found.target for found in imports_of(module) if found.target in MODULES and found.target != name}
        for name, module in MODULES.items()
    }
    while ends := {name for name, targets in below.items() if not targets}:
        below = {name: targets - ends for name, targets in below.items() if name not in ends}
    assert below == {}, "these modules import each other, or one that does"


def late_imports(module: Module) -> list[int]:
    """Lines of imports that are not statements of the module itself: in functions, under conditions, in `try`."""
    first = {id(node) for node in module.tree.body}
    late = [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in first
    ]
    by_name = [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"__import__", "importlib.import_module"}
    ]
    return late + by_name


def names_type_checking(module: Module) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id == "TYPE_CHECKING")
        or (isinstance(node, ast.Attribute) and node.attr == "TYPE_CHECKING")
        or (isinstance(node, ast.alias) and node.name == "TYPE_CHECKING")
        for node in ast.walk(module.tree)
    )


def test_every_import_stands_at_the_top_of_its_module() -> None:
    assert {name: lines for name, module in MODULES.items() if (lines := late_imports(module))} == {}


def test_types_are_imported_as_everything_else_is() -> None:
    assert [name for name, module in MODULES.items() if names_type_checking(module)] == []


# The rules see what they forbid.


@pytest.mark.parametrize(
    ("name", "source", "rule"),
    [
        ("protocol.codec", "from daemon import auth", crosses_a_wall),
        ("control.files", "import protocol.errors", crosses_a_wall),
        ("control.files", "from daemon.uploads import Uploads", crosses_a_wall),
        ("device.client", "from control.ports import File", crosses_a_wall),
        ("daemon.uploads", "from control import ports", crosses_a_wall),
        ("daemon.auth", "from daemon.settings import Settings", reaches_a_sibling),
        ("daemon.catalog.rows", "from ..storage import local", reaches_a_sibling),
        ("daemon.storage.local", "def f():\n from daemon import catalog", reaches_a_sibling),
        ("daemon.adapters.clock", "from daemon.settings import Settings", reaches_a_sibling),
        ("protocol.codec", "from benchmarks import wire", reaches_outside_of_the_rooms),
        ("daemon.app", "import benchmarks", reaches_outside_of_the_rooms),
        ("control.files", "from tests.control.fakes import Files", reaches_outside_of_the_rooms),
        ("device.client", "def f():\n import benchmarks.uplinkd", reaches_outside_of_the_rooms),
    ],
)
def test_a_forbidden_import_is_seen(name: str, source: str, rule: Callable[[Module, Import], bool]) -> None:
    module = fake(name, source)
    assert [rule(module, found) for found in imports_of(module)] == [True]


@pytest.mark.parametrize(
    ("name", "source", "rule"),
    [
        ("daemon.app", "from control import ports", crosses_a_wall),
        ("device.client", "from protocol.client import ClientConnection", crosses_a_wall),
        ("daemon.auth", "from daemon.adapters.clock import Clock", reaches_a_sibling),
        ("daemon.catalog.rows", "from . import records", reaches_a_sibling),
        ("daemon.uploads", "from daemon.auth import Identity", reaches_a_sibling),
        ("daemon.uploads", "from daemon.tests import of_nothing", reaches_outside_of_the_rooms),
    ],
)
def test_an_import_that_is_allowed_passes(name: str, source: str, rule: Callable[[Module, Import], bool]) -> None:
    module = fake(name, source)
    assert [rule(module, found) for found in imports_of(module)] == [False]


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n import os",
        "if X:\n import os",
        "try:\n import os\nexcept ImportError:\n pass",
        "importlib.import_module('os')",
    ],
)
def test_a_late_import_is_seen(source: str) -> None:
    assert len(late_imports(fake("daemon.uploads", source))) == 1


def test_type_checking_is_seen() -> None:
    assert names_type_checking(fake("daemon.uploads", "from typing import TYPE_CHECKING"))
    assert names_type_checking(fake("daemon.uploads", "import typing\nif typing.TYPE_CHECKING: pass"))
