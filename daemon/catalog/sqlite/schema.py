"""Migrates a catalog to the schema of this program."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from daemon.catalog.interface import CatalogNewer


class Migration(NamedTuple):
    """The statements that lead from `version - 1` to `version`."""

    version: int
    sql: str


def load() -> tuple[Migration, ...]:
    """All migrations of this program, in order: the files `NNNN_what.sql`.

    Raises ValueError unless they are numbered 1, 2, … without a gap.
    """
    folder = resources.files("daemon.catalog.sqlite.migrations")
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name)
    migrations = tuple(Migration(int(each.name[:4]), each.read_text(encoding="utf-8")) for each in files)
    if [each.version for each in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError(f"the catalog's migrations are not numbered 1, 2, …: {[each.name for each in files]}")
    return migrations


def version(connection: sqlite3.Connection) -> int:
    """The schema's version: the number of migrations applied, 0 for a new file."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


def backup_path(path: Path, found: int) -> Path:
    """Where the copy of a catalog of version `found` goes before it is migrated."""
    return path.with_name(f"{path.name}.v{found}.bak")


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Apply the missing migrations, each in its own transaction. A catalog that is not new is copied first.

    Raises CatalogNewer if the catalog's version is above all of `migrations`, and sqlite3.Error.
    """
    found, known = version(connection), len(migrations)
    if found > known:
        raise CatalogNewer(
            f"the catalog {path} has schema version {found}, and this program knows versions up to {known}: "
            f"run the newer program, or restore a copy made before the upgrade, such as {backup_path(path, known)}: "
            f"stop the daemon, move {path.name}-wal and {path.name}-shm away, and put the copy in place of {path.name}"
        )
    if 0 < found < known:
        with closing(sqlite3.connect(backup_path(path, found))) as copy:
            connection.backup(copy)
    for migration in migrations[found:]:
        script = f"BEGIN IMMEDIATE;\n{migration.sql}\nPRAGMA user_version = {migration.version:d};\nCOMMIT;"
        try:
            connection.executescript(script)
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise
