"""Who may import whom, and where: rooms, levels, no cycles, and every import at the top of its module."""

import ast
from collections.abc import Callable

import pytest

from tests.support.source_modules import (
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
    "control": frozenset({"protocol", "daemon.catalog.records"}),
    "device": frozenset({"protocol"}),
    "daemon": frozenset({"protocol"}),
}
"""What a room may import of the other rooms: whole rooms, and single modules of plain values."""

JOIN_DAEMON_AND_CONTROL = frozenset({"daemon.app", "daemon.control_ports"})
"""The modules that join the daemon and the control plane."""

LEVELS = (
    *("__main__", "cli", "app", "control_ports", "core", "policies", "health"),
    *("admin", "tcp", "ingest", "identity", "upkeep", "catalog", "storage", "process", "telemetry"),
    *("settings", "tasks", "adapters"),
)
"""The daemon's folders and files from top to bottom: each imports only what stands below it."""


def crosses_a_wall(module: Module, found: Import) -> bool:
    target = top(found.target)
    if target not in ROOMS or target == module.room:
        return False
    if any(in_package(found.target, allowed) for allowed in MAY_IMPORT[module.room]):
        return False
    return not (module.name in JOIN_DAEMON_AND_CONTROL and target == "control")


def imports_upwards(module: Module, found: Import) -> bool:
    here, there = module.name.split("."), found.target.split(".")
    if here[0] != "daemon" or there[0] != "daemon" or len(here) < 2 or len(there) < 2 or here[1] == there[1]:
        return False
    return LEVELS.index(there[1]) <= LEVELS.index(here[1])


def forges_frames(module: Module, found: Import) -> bool:
    """Ingest takes plain values, so that another way in needs no frames."""
    on_the_wire = any(in_package(found.target, each) for each in ("protocol.frames", "protocol.events"))
    return in_package(module.name, "daemon.ingest") and on_the_wire


def reaches_outside_of_the_rooms(module: Module, found: Import) -> bool:
    return top(found.target) in {"tests", "benchmarks"}


def test_all_rooms_are_read() -> None:
    assert {module.room for module in MODULES.values()} == set(ROOMS)


def test_rooms_import_only_what_the_design_allows() -> None:
    assert breaches(crosses_a_wall) == []


def test_the_daemon_imports_downwards() -> None:
    assert breaches(imports_upwards) == []


def test_every_part_of_the_daemon_has_a_level() -> None:
    parts = {name.split(".")[1] for name in MODULES if in_package(name, "daemon") and name != "daemon"}
    assert parts == set(LEVELS)


def test_no_room_imports_the_tests_or_the_benchmarks() -> None:
    assert breaches(reaches_outside_of_the_rooms) == []


def test_only_the_declarations_of_the_wire_import_construct() -> None:
    declarations = {"protocol.frames", "protocol.layouts"}
    users = breaches(lambda module, found: top(found.target) == "construct" and module.name not in declarations)
    assert users == []


def test_ingest_takes_no_frames() -> None:
    assert breaches(forges_frames) == []


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
        ("protocol.codec", "from daemon import tcp", crosses_a_wall),
        ("control.files", "from daemon.ingest.uploads import Uploads", crosses_a_wall),
        ("control.files", "from daemon.catalog.interface import Catalog", crosses_a_wall),
        ("device.client", "from control.ports import File", crosses_a_wall),
        ("daemon.ingest.uploads", "from control import ports", crosses_a_wall),
        ("daemon.identity.tokens", "from daemon.policies import auth_policy", imports_upwards),
        ("daemon.storage.local.calls", "from ...catalog import records", imports_upwards),
        ("daemon.storage.local.storage", "def f():\n from daemon.tcp import session", imports_upwards),
        ("daemon.adapters.clock", "from daemon.settings import Settings", imports_upwards),
        ("daemon.ingest.uploads", "from protocol.events import ChunksReceived", forges_frames),
        ("daemon.ingest.uploads", "from protocol import frames", forges_frames),
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
        ("control.files", "from protocol.errors import ErrorCode", crosses_a_wall),
        ("control.files", "from daemon.catalog.records import State", crosses_a_wall),
        ("device.client", "from protocol.client import ClientConnection", crosses_a_wall),
        ("daemon.identity.tokens", "from daemon.adapters.clock import Clock", imports_upwards),
        ("daemon.catalog.sqlite.rows", "from . import schema", imports_upwards),
        ("daemon.ingest.uploads", "from daemon.identity.tokens import Identity", imports_upwards),
        ("daemon.tcp.session", "from protocol import frames", forges_frames),
        ("daemon.ingest.uploads", "from protocol.errors import ErrorCode", forges_frames),
        ("daemon.ingest.uploads", "from daemon.tests import of_nothing", reaches_outside_of_the_rooms),
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
    assert len(late_imports(fake("daemon.ingest.uploads", source))) == 1


def test_type_checking_is_seen() -> None:
    assert names_type_checking(fake("daemon.ingest.uploads", "from typing import TYPE_CHECKING"))
    assert names_type_checking(fake("daemon.ingest.uploads", "import typing\nif typing.TYPE_CHECKING: pass"))
