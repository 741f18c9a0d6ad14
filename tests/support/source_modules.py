"""The sources as modules and imports, read from their syntax trees, so that a broken rule names module and line."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("protocol", "daemon", "control", "device")

ADAPTERS = "daemon.adapters"


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
    """Everything the module imports, at any level; `from a import b` counts as a.b if that is a module."""
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
        f"{module.path.relative_to(ROOT)}:{imported.line}: imports {imported.target}"
        for module in MODULES.values()
        for imported in imports_of(module)
        if rule(module, imported)
    ]


def top(name: str) -> str:
    """The first part of a dotted name: a room, or a package that is not ours."""
    return name.partition(".")[0]


def fake(name: str, source: str) -> Module:
    """A module that does not exist, for a test of the rules."""
    return Module(name, ROOT / Path(*name.split(".")).with_suffix(".py"), ast.parse(source))
