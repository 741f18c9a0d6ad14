"""Only the daemon's adapters, and a few modules with a reason, may touch the machine. `protocol` never does."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.source_modules import ADAPTERS, MODULES, ROOT, Module, breaches, fake, imports_of, in_package, top

PURE = frozenset(
    {
        *(
            "array",
            "base64",
            "bisect",
            "collections",
            "dataclasses",
            "enum",
            "functools",
            "operator",
            "struct",
            "typing",
        ),
        "unicodedata",
        *("hashlib", "hmac"),  # digests over given bytes
        *("google_crc32c", "numpy"),
        "re",
        "construct",  # in frames and layouts alone
    }
)
"""All that `protocol` may import: no clock, randomness, file, socket, thread or log."""

MACHINE_MODULES = frozenset(
    {
        *("time", "random", "secrets", "uuid"),
        *("threading", "_thread", "queue", "concurrent", "multiprocessing", "subprocess", "signal"),
        *("os", "resource", "posix", "io", "fcntl", "mmap", "shutil", "tempfile", "glob"),
        *("socket", "select", "selectors"),
        "sqlite3",
    }
)
"""Modules that reach the machine: clock, randomness, threads, files, sockets."""

MACHINE_CALLS = frozenset(
    {
        *("open", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir", "lstat"),
        *("mkdir", "rmdir", "unlink", "iterdir", "rglob", "chmod", "symlink_to", "hardlink_to", "samefile"),
        *("to_thread", "run_in_executor"),
        *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    }
)
"""Calls that reach the machine without such a module. `open` is the builtin, not a method of that name."""


@dataclass(frozen=True, slots=True)
class Exemption:
    """A module outside the adapters that may use these parts of the machine, and why."""

    module: str
    uses: frozenset[str]
    why: str


EXEMPTIONS = (
    Exemption(
        "daemon.settings", frozenset({"read_text"}), "the configuration is read before the daemon serves anything"
    ),
    Exemption(
        "daemon.identity.keys",
        frozenset({"os", "exists", "hardlink_to", "read_bytes", "unlink"}),
        "keys are read, and the first secret is made, before the daemon serves anything",
    ),
    Exemption(
        "daemon.process.systemd", frozenset({"socket"}), "systemd is notified through a socket, and passes sockets"
    ),
    Exemption("daemon.tcp.acceptor", frozenset({"socket"}), "the listeners are sockets, and so is what they accept"),
    Exemption("daemon.tcp.listener", frozenset({"socket"}), "accepted sockets pass through to their connections"),
    Exemption("daemon.cli.main", frozenset({"os"}), "the command line reads the environment and passes it on"),
    Exemption("daemon.app", frozenset({"socket"}), "the composition root passes on the sockets that systemd opened"),
    Exemption("daemon.process.lifecycle", frozenset({"signal"}), "signals reload and stop the process"),
    Exemption(
        "daemon.admin.unix_socket",
        frozenset({"socket", "exists", "unlink", "chmod"}),
        "the admin socket is a file with a mode of its own, made and removed with the listener",
    ),
    Exemption(
        "daemon.cli.checks",
        frozenset({"exists", "is_dir", "read_text"}),
        "check-config looks at the paths in the settings, and serves nothing",
    ),
    Exemption(
        "daemon.catalog.sqlite.schema", frozenset({"iterdir", "read_text"}), "the migrations are files of the package"
    ),
    Exemption("control.operations", frozenset({"read_bytes"}), "the API's description is a file of the package"),
    Exemption("control.listener", frozenset({"socket"}), "the listener may be a socket that systemd opened"),
)

SQLITE_ROOM = "daemon.catalog"
"""The room that uses SQLite, on a thread that the adapters provide."""


def machine_uses(module: Module) -> Iterator[tuple[str, int]]:
    """The parts of the machine that a module touches, each with its line."""
    for imported in imports_of(module):
        if top(imported.target) in MACHINE_MODULES:
            yield top(imported.target), imported.line
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
    exemption = next((each.uses for each in EXEMPTIONS if each.module == module.name), frozenset[str]())
    if in_package(module.name, SQLITE_ROOM):
        exemption |= {"sqlite3"}
    return [
        f"{module.path.relative_to(ROOT)}:{line}: touches the machine by {use}"
        for use, line in machine_uses(module)
        if use not in exemption
    ]


@pytest.mark.parametrize("room", ["daemon", "control"])
def test_only_the_adapters_touch_the_machine(room: str) -> None:
    touching = [module for module in MODULES.values() if module.room == room and not in_package(module.name, ADAPTERS)]
    assert [breach for module in touching for breach in machine_breaches(module)] == []


@pytest.mark.parametrize("exemption", EXEMPTIONS, ids=lambda exemption: exemption.module)
def test_every_exception_has_a_reason_and_is_needed(exemption: Exemption) -> None:
    assert exemption.why
    assert exemption.module in MODULES
    assert {use for use, _ in machine_uses(MODULES[exemption.module])} >= exemption.uses


def test_the_protocol_is_pure() -> None:
    protocol = [module for module in MODULES.values() if module.room == "protocol"]
    impure = breaches(
        lambda module, imported: module.room == "protocol" and top(imported.target) not in PURE | {"protocol"}
    )
    assert impure == []
    assert [breach for module in protocol for breach in machine_breaches(module)] == []


# The rules detect violations.


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
def test_a_use_of_the_machine_is_detected(source: str) -> None:
    assert len(machine_breaches(fake("daemon.ingest.uploads", source))) == 1


@pytest.mark.parametrize(
    "source", ["await uploads.open(request)", "clock.monotonic_s()", "server.now()", "import asyncio"]
)
def test_injected_parts_pass(source: str) -> None:
    assert machine_breaches(fake("daemon.ingest.uploads", source)) == []
