"""Tests mirror the sources."""

import ast
from pathlib import Path

import pytest

from tests.support.source_modules import MODULES, ROOMS, ROOT, Module, fake, imports_of, in_package, load

TESTS_OF_NO_MODULE = {
    "tests/protocol/test_vectors.py": "the vectors belong to PROTOCOL.md",
    "tests/daemon/test_main.py": "`python -m daemon` is __main__.py, which only calls the command line",
    "tests/control/test_real_clients.py": "third-party clients, against the whole room",
}


def runs_something(module: Module) -> bool:
    """Whether the module has a function with a body other than a constructor. Interfaces and records have none."""
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
    """Where the module's tests may be: in one file, or in a folder of the module's name with one file a subject."""
    relative = module.path.relative_to(ROOT)
    place = ROOT / "tests" / relative.parent
    return sorted((place / relative.stem).glob("test_*.py")) or [place / f"test_{relative.stem}.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_with_code_has_tests_in_its_place(room: str) -> None:
    untested = [
        module.name
        for module in MODULES.values()
        if module.room == room and not module.path.stem.startswith("__")
        if room == "protocol" or runs_something(module)
        if not all(map(has_tests, places_of_tests(module)))
    ]
    assert untested == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_test_file_belongs_to_a_module(room: str) -> None:
    expected = {place for module in MODULES.values() for place in places_of_tests(module)}
    files = {path for path in (ROOT / "tests" / room).rglob("test_*.py") if "__pycache__" not in path.parts}
    strays = {str(path.relative_to(ROOT)) for path in files - expected}
    assert strays - TESTS_OF_NO_MODULE.keys() == set()


# The rules detect violations.


def test_interfaces_and_records_need_no_tests() -> None:
    assert not runs_something(fake("control.ports", "class Files(Protocol):\n def get(self) -> int:\n  'One.'\n  ..."))
    assert runs_something(fake("control.files", "def get() -> int:\n return 1"))


LINES_MAX = 400
"""A longer file has more than one purpose."""


def test_no_source_file_is_longer_than_one_room() -> None:
    long = {name: lines for name, module in MODULES.items() if (lines := _lines(module.path)) > LINES_MAX}
    assert long == {}


def test_test_helpers_are_in_the_support_folder() -> None:
    """Except fixtures, which pytest looks for next to the tests, and the demo, which is a program."""
    helpers = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if not path.name.startswith("test_") and path.name not in {"conftest.py", "__init__.py"}
        if path.relative_to(ROOT / "tests").parts[0] != "support"
    }
    assert helpers == {"tests/e2e/demo.py"}


def test_no_test_imports_from_another_test_folder() -> None:
    """Helpers that two folders share belong in tests/support."""
    crossing = [
        f"{path.relative_to(ROOT)}: {imported.target}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for imported in imports_of(load(path))
        if in_package(imported.target, "tests") and not in_package(imported.target, "tests.support")
        if not path.is_relative_to((ROOT / Path(*imported.target.split("."))).parent)
    ]
    assert crossing == []


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")
