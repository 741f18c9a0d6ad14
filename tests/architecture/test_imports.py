"""Import rules: what each room may import, levels, no cycles, and every import at the top of its module."""

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
"""What a room may import from other rooms: whole rooms, or single modules of plain values."""

JOIN_DAEMON_AND_CONTROL = frozenset({"daemon.app", "daemon.control_ports"})
"""The modules that join the daemon and the control plane."""

LEVELS = (
    *("__main__", "cli", "app", "control_ports", "core", "policies", "health"),
    *("admin", "tcp", "ingest", "identity", "upkeep", "catalog", "storage", "process", "telemetry"),
    *("settings", "sections", "shares", "tasks", "adapters"),
)
"""The daemon's folders and files from top to bottom: each may import only those below it."""


def breaks_room_rules(module: Module, imported: Import) -> bool:
    target = top(imported.target)
    if target not in ROOMS or target == module.room:
        return False
    if any(in_package(imported.target, allowed) for allowed in MAY_IMPORT[module.room]):
        return False
    return not (module.name in JOIN_DAEMON_AND_CONTROL and target == "control")


def imports_upwards(module: Module, imported: Import) -> bool:
    here, there = module.name.split("."), imported.target.split(".")
    if here[0] != "daemon" or there[0] != "daemon" or len(here) < 2 or len(there) < 2 or here[1] == there[1]:
        return False
    return LEVELS.index(there[1]) <= LEVELS.index(here[1])


def ingest_imports_frames(module: Module, imported: Import) -> bool:
    """Ingest takes plain values, so that another protocol can feed it without building frames."""
    on_the_wire = any(in_package(imported.target, each) for each in ("protocol.frames", "protocol.events"))
    return in_package(module.name, "daemon.ingest") and on_the_wire


def imports_outside_the_rooms(module: Module, imported: Import) -> bool:
    return top(imported.target) in {"tests", "benchmarks"}


def test_every_room_is_checked() -> None:
    assert {module.room for module in MODULES.values()} == set(ROOMS)


def test_rooms_import_only_what_the_design_allows() -> None:
    assert breaches(breaks_room_rules) == []


def test_the_daemon_imports_downwards() -> None:
    assert breaches(imports_upwards) == []


def test_every_part_of_the_daemon_has_a_level() -> None:
    parts = {name.split(".")[1] for name in MODULES if in_package(name, "daemon") and name != "daemon"}
    assert parts == set(LEVELS)


def test_no_room_imports_the_tests_or_the_benchmarks() -> None:
    assert breaches(imports_outside_the_rooms) == []


def test_only_wire_declarations_import_construct() -> None:
    declarations = {"protocol.frames", "protocol.layouts"}
    users = breaches(lambda module, imported: top(imported.target) == "construct" and module.name not in declarations)
    assert users == []


def test_ingest_takes_no_frames() -> None:
    assert breaches(ingest_imports_frames) == []


def test_imports_have_no_cycle() -> None:
    below = {
        name: {
            imported.target for imported in imports_of(module) if imported.target in MODULES and imported.target != name
        }
        for name, module in MODULES.items()
    }
    while ends := {name for name, targets in below.items() if not targets}:
        below = {name: targets - ends for name, targets in below.items() if name not in ends}
    assert below == {}, "these modules are in an import cycle, or import one that is"


def late_imports(module: Module) -> list[int]:
    """Lines of imports below the module's top level: in functions, under conditions, in `try`."""
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


def test_every_import_is_at_the_top_of_its_module() -> None:
    assert {name: lines for name, module in MODULES.items() if (lines := late_imports(module))} == {}


def test_no_module_uses_type_checking() -> None:
    assert [name for name, module in MODULES.items() if names_type_checking(module)] == []


# The rules detect violations.


@pytest.mark.parametrize(
    ("name", "source", "rule"),
    [
        ("protocol.codec", "from daemon import tcp", breaks_room_rules),
        ("control.files", "from daemon.ingest.uploads import Uploads", breaks_room_rules),
        ("control.files", "from daemon.catalog.interface import Catalog", breaks_room_rules),
        ("device.client", "from control.ports import File", breaks_room_rules),
        ("daemon.ingest.uploads", "from control import ports", breaks_room_rules),
        ("daemon.identity.tokens", "from daemon.policies import auth_policy", imports_upwards),
        ("daemon.storage.local.calls", "from ...catalog import records", imports_upwards),
        ("daemon.storage.local.storage", "def f():\n from daemon.tcp import session", imports_upwards),
        ("daemon.adapters.clock", "from daemon.settings import Settings", imports_upwards),
        ("daemon.ingest.uploads", "from protocol.events import ChunksReceived", ingest_imports_frames),
        ("daemon.ingest.uploads", "from protocol import frames", ingest_imports_frames),
        ("protocol.codec", "from benchmarks import wire", imports_outside_the_rooms),
        ("daemon.app", "import benchmarks", imports_outside_the_rooms),
        ("control.files", "from tests.control.fakes import Files", imports_outside_the_rooms),
        ("device.client", "def f():\n import benchmarks.uplinkd", imports_outside_the_rooms),
    ],
)
def test_a_forbidden_import_is_detected(name: str, source: str, rule: Callable[[Module, Import], bool]) -> None:
    module = fake(name, source)
    assert [rule(module, imported) for imported in imports_of(module)] == [True]


@pytest.mark.parametrize(
    ("name", "source", "rule"),
    [
        ("daemon.app", "from control import ports", breaks_room_rules),
        ("control.files", "from protocol.errors import ErrorCode", breaks_room_rules),
        ("control.files", "from daemon.catalog.records import State", breaks_room_rules),
        ("device.client", "from protocol.client import ClientConnection", breaks_room_rules),
        ("daemon.identity.tokens", "from daemon.adapters.clock import Clock", imports_upwards),
        ("daemon.catalog.sqlite.rows", "from . import schema", imports_upwards),
        ("daemon.ingest.uploads", "from daemon.identity.tokens import Identity", imports_upwards),
        ("daemon.tcp.session", "from protocol import frames", ingest_imports_frames),
        ("daemon.ingest.uploads", "from protocol.errors import ErrorCode", ingest_imports_frames),
        ("daemon.ingest.uploads", "from daemon.tests import of_nothing", imports_outside_the_rooms),
    ],
)
def test_an_allowed_import_passes(name: str, source: str, rule: Callable[[Module, Import], bool]) -> None:
    module = fake(name, source)
    assert [rule(module, imported) for imported in imports_of(module)] == [False]


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n import os",
        "if X:\n import os",
        "try:\n import os\nexcept ImportError:\n pass",
        "importlib.import_module('os')",
    ],
)
def test_a_late_import_is_detected(source: str) -> None:
    assert len(late_imports(fake("daemon.ingest.uploads", source))) == 1


def test_type_checking_is_detected() -> None:
    assert names_type_checking(fake("daemon.ingest.uploads", "from typing import TYPE_CHECKING"))
    assert names_type_checking(fake("daemon.ingest.uploads", "import typing\nif typing.TYPE_CHECKING: pass"))
