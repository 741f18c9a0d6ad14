"""Who may import whom, who may touch the machine, and where the tests of a module are.

The rules are read off the syntax trees of all modules, so a rule that is broken is named with module and line.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("protocol", "daemon", "control", "device")

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

ADAPTERS = "daemon.adapters"

PURE = frozenset(
    {
        *("bisect", "collections", "dataclasses", "enum", "functools", "operator", "struct", "typing", "unicodedata"),
        *("hashlib", "hmac"),  # digests over bytes that are given
        *("google_crc32c", "numpy"),
        "construct",  # in layouts alone, see below
    }
)
"""All that `protocol` may import: nothing here knows of a clock, chance, a file, a socket, a thread or a log."""

MACHINE_MODULES = frozenset(
    {
        *("time", "random", "secrets", "uuid"),
        *("threading", "_thread", "queue", "concurrent", "multiprocessing", "subprocess", "signal"),
        *("os", "posix", "io", "fcntl", "mmap", "shutil", "tempfile", "glob"),
        *("socket", "select", "selectors"),
        "sqlite3",
    }
)
"""Modules that are the machine: clock, chance, threads, files, sockets."""

MACHINE_CALLS = frozenset(
    {
        *("open", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir", "lstat"),
        *("mkdir", "rmdir", "unlink", "iterdir", "rglob", "chmod", "symlink_to", "hardlink_to", "samefile"),
        *("to_thread", "run_in_executor"),
        *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    }
)
"""Calls that touch the machine without such a module. `open` is the builtin, not a method of that name."""


@dataclass(frozen=True, slots=True)
class Leave:
    """A module outside the adapters that may use these parts of the machine, and why."""

    module: str
    uses: frozenset[str]
    why: str


LEAVES_TO_TOUCH = (
    Leave("daemon.settings", frozenset({"read_text"}), "the configuration is read before anything is served"),
    Leave(
        "daemon.keys",
        frozenset({"os", "exists", "hardlink_to", "read_bytes", "unlink"}),
        "keys are read, and the first secret is made, before anything is served",
    ),
    Leave("daemon.notify", frozenset({"socket"}), "systemd is spoken to through its socket"),
    Leave("daemon.server", frozenset({"socket"}), "the listeners are sockets, and their options are set here"),
    Leave("daemon.cli", frozenset({"os"}), "the command line takes the environment and hands it on"),
    Leave("daemon.app", frozenset({"socket"}), "the composition root hands on the sockets that systemd opened"),
    Leave("daemon.process", frozenset({"socket"}), "as above, from systemd to the root"),
    Leave("daemon.lifecycle", frozenset({"signal"}), "the process's signals are its life"),
    Leave(
        "daemon.admin",
        frozenset({"socket", "exists", "unlink", "chmod"}),
        "the admin socket is a file with rights of its own, made and removed with the listener",
    ),
    Leave(
        "daemon.checks",
        frozenset({"exists", "is_dir", "read_text"}),
        "check-config looks at the places that the settings name; nothing is served meanwhile",
    ),
    Leave("daemon.catalog.schema", frozenset({"iterdir", "read_text"}), "the migrations are files of the package"),
    Leave("control.operations", frozenset({"read_bytes"}), "the API's description is a file of the package"),
    Leave("control.server", frozenset({"socket"}), "the listener may be a socket that systemd opened"),
)

SQLITE_ROOM = "daemon.catalog"
"""The catalog is SQLite; it runs on a lane of the adapters."""

TESTS_OF_NO_MODULE = {
    "tests/protocol/test_vectors.py": "the vectors belong to PROTOCOL.md",
    "tests/daemon/test_main.py": "`python -m daemon` is __main__.py, which only calls the command line",
    "tests/control/test_real_clients.py": "clients that are not ours, against the whole room",
}


@dataclass(frozen=True, slots=True)
class Module:
    """One source file."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    @property
    def package(self) -> str:
        """The package in which relative imports would start."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, or a name in one."""

    target: str
    line: int


def load(path: Path) -> Module:
    relative = path.relative_to(ROOT).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return Module(".".join(parts), path, ast.parse(path.read_text(encoding="utf-8")))


def sources() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


MODULES = {module.name: module for module in map(load, sources())}


def in_package(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def imports_of(module: Module) -> Iterator[Import]:
    """Everything the module imports, wherever the statement stands; `from a import b` is a.b where that is a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            start = module.package.split(".")[: len(module.package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in MODULES else base, node.lineno)


def breaches(rule: Callable[[Module, Import], bool]) -> list[str]:
    """The imports that a rule forbids."""
    return [
        f"{module.path.relative_to(ROOT)}:{found.line}: imports {found.target}"
        for module in MODULES.values()
        for found in imports_of(module)
        if rule(module, found)
    ]


def top(name: str) -> str:
    return name.partition(".")[0]


# Rooms.


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


# The machine.


def machine_uses(module: Module) -> Iterator[tuple[str, int]]:
    """The parts of the machine that a module touches, each with its line."""
    for found in imports_of(module):
        if top(found.target) in MACHINE_MODULES:
            yield top(found.target), found.line
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and (name := machine_call(node.func)):
            yield name, node.lineno


def machine_call(called: ast.expr) -> str | None:
    if isinstance(called, ast.Name):
        return "open" if called.id == "open" else None
    if not isinstance(called, ast.Attribute):
        return None
    owner = called.value.id if isinstance(called.value, ast.Name) else ""
    qualified = f"{owner}.{called.attr}"
    if qualified in MACHINE_CALLS:
        return qualified
    return called.attr if called.attr in MACHINE_CALLS - {"open"} else None


def machine_breaches(module: Module) -> list[str]:
    leave = next((each.uses for each in LEAVES_TO_TOUCH if each.module == module.name), frozenset[str]())
    if in_package(module.name, SQLITE_ROOM):
        leave |= {"sqlite3"}
    return [
        f"{module.path.relative_to(ROOT)}:{line}: touches the machine by {use}"
        for use, line in machine_uses(module)
        if use not in leave
    ]


@pytest.mark.parametrize("room", ["daemon", "control"])
def test_the_machine_is_touched_by_the_adapters_alone(room: str) -> None:
    touching = [module for module in MODULES.values() if module.room == room and not in_package(module.name, ADAPTERS)]
    assert [breach for module in touching for breach in machine_breaches(module)] == []


@pytest.mark.parametrize("leave", LEAVES_TO_TOUCH, ids=lambda leave: leave.module)
def test_every_exception_has_a_reason_and_is_needed(leave: Leave) -> None:
    assert leave.why
    assert leave.module in MODULES
    assert {use for use, _ in machine_uses(MODULES[leave.module])} >= leave.uses


def test_the_protocol_is_pure() -> None:
    protocol = [module for module in MODULES.values() if module.room == "protocol"]
    impure = breaches(lambda module, found: module.room == "protocol" and top(found.target) not in PURE | {"protocol"})
    assert impure == []
    assert [breach for module in protocol for breach in machine_breaches(module)] == []


# Imports stand at the top.


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


# Tests mirror the sources.


def runs_something(module: Module) -> bool:
    """Whether there is a function with a body, other than a constructor; interfaces and records only declare."""
    return any(
        node.name != "__init__"
        and not all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in node.body)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def has_tests(path: Path) -> bool:
    return path.exists() and any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def places_of_tests(module: Module) -> list[Path]:
    """The one file that mirrors the module; or, where its subjects have a file each, those in a folder of its name."""
    relative = module.path.relative_to(ROOT)
    place = ROOT / "tests" / relative.parent
    return sorted((place / relative.stem).glob("test_*.py")) or [place / f"test_{relative.stem}.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_that_runs_has_tests_in_its_place(room: str) -> None:
    untested = [
        module.name
        for module in MODULES.values()
        if module.room == room and not module.path.stem.startswith("__")
        if room == "protocol" or runs_something(module)
        if not all(map(has_tests, places_of_tests(module)))
    ]
    assert untested == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_tests_in_a_room_belongs_to_a_module(room: str) -> None:
    expected = {place for module in MODULES.values() for place in places_of_tests(module)}
    found = {path for path in (ROOT / "tests" / room).rglob("test_*.py") if "__pycache__" not in path.parts}
    strays = {str(path.relative_to(ROOT)) for path in found - expected}
    assert strays - TESTS_OF_NO_MODULE.keys() == set()


# The rules see what they forbid.


def fake(name: str, source: str) -> Module:
    return Module(name, ROOT / Path(*name.split(".")).with_suffix(".py"), ast.parse(source))


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
        "import time",
        "from os import path",
        "from concurrent.futures import Executor",
        "import sqlite3",
        "f = open('x')",
        "Path('x').read_text()",
        "path.parent.mkdir()",
        "loop.run_in_executor(None, work)",
        "await asyncio.to_thread(work)",
        "datetime.now(UTC)",
    ],
)
def test_a_use_of_the_machine_is_seen(source: str) -> None:
    assert len(machine_breaches(fake("daemon.uploads", source))) == 1


@pytest.mark.parametrize(
    "source", ["await uploads.open(request)", "clock.monotonic_s()", "server.now()", "import asyncio"]
)
def test_what_is_injected_passes(source: str) -> None:
    assert machine_breaches(fake("daemon.uploads", source)) == []


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


def test_interfaces_and_records_run_nothing() -> None:
    assert not runs_something(fake("control.ports", "class Files(Protocol):\n def get(self) -> int:\n  'One.'\n  ..."))
    assert runs_something(fake("control.files", "def get() -> int:\n return 1"))
