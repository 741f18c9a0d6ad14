"""Catalogs are made, brought up to date after a copy, or refused."""

import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest

from daemon.catalog.interface import CatalogNewer
from daemon.catalog.records import State
from daemon.catalog.sqlite import queries
from daemon.catalog.sqlite.rows import COLUMNS, to_row
from daemon.catalog.sqlite.schema import Migration, backup_path, load, migrate, version
from tests.support.catalog_samples import DEVICE, NAME, TENANT, upload

FIRST = Migration(1, "CREATE TABLE files (id INTEGER PRIMARY KEY);")
SECOND = Migration(2, "ALTER TABLE files ADD COLUMN name TEXT; INSERT INTO files VALUES (2, 'b');")
BROKEN = Migration(2, "INSERT INTO files VALUES (9); SELECT no_such_thing FROM files;")


def opened(path: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(path, isolation_level=None))


def test_the_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [each.version for each in load()] == list(range(1, len(load()) + 1))


def test_a_gap_between_migrations_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0001_a.sql", "0003_c.sql"):
        (tmp_path / name).write_text("SELECT 1;")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"not numbered 1, 2.*0003_c\.sql"):
        load()


def test_a_new_catalog_is_made_without_a_copy(path: Path) -> None:
    with opened(path) as connection:
        migrate(connection, path, load())
        assert version(connection) == len(load())
        assert connection.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
    assert list(path.parent.glob("*.bak")) == []


def test_an_older_catalog_is_copied_then_migrated(path: Path) -> None:
    with opened(path) as connection:
        migrate(connection, path, [FIRST])
        connection.execute("INSERT INTO files VALUES (1)")
        migrate(connection, path, [FIRST, SECOND])
        assert version(connection) == 2
        assert connection.execute("SELECT * FROM files").fetchall() == [(1, None), (2, "b")]
    assert backup_path(path, 1) == path.with_name("catalog.sqlite.v1.bak")
    with opened(backup_path(path, 1)) as copy:
        assert version(copy) == 1
        assert copy.execute("SELECT * FROM files").fetchall() == [(1,)]


def test_names_of_a_catalog_of_version_1_stand_for_their_complete_files(path: Path) -> None:
    # So version 1 leaves a name whose replacement failed: no upload under it is current.
    complete = upload(State.COMPLETE, id=1)
    failed = upload(State.ABORTED, id=2, created_ms=2_000, updated_ms=3_000)
    deleted = upload(State.DELETED, id=3, name="another")
    values = ", ".join("?" * len(to_row(complete)))
    with opened(path) as connection:
        migrate(connection, path, load()[:1])
        connection.executemany(
            f"INSERT INTO uploads ({COLUMNS}, held_bytes, is_current) VALUES ({values}, 0, 0)",
            [to_row(each) for each in (complete, failed, deleted)],
        )
        migrate(connection, path, load())
        assert queries.find(connection, TENANT, DEVICE, NAME) == complete
        assert queries.find(connection, TENANT, DEVICE, "another") == deleted


def test_a_catalog_of_this_version_is_left_alone(path: Path) -> None:
    with opened(path) as connection:
        migrate(connection, path, [FIRST])
        migrate(connection, path, [FIRST])
        assert version(connection) == 1
    assert list(path.parent.glob("*.bak")) == []


def test_a_migration_that_fails_leaves_nothing_behind(path: Path) -> None:
    with opened(path) as connection:
        migrate(connection, path, [FIRST])
        with pytest.raises(sqlite3.OperationalError, match="no_such_thing"):
            migrate(connection, path, [FIRST, BROKEN])
        assert version(connection) == 1
        assert not connection.in_transaction
        assert connection.execute("SELECT * FROM files").fetchall() == []


def test_a_newer_catalog_is_refused_and_the_message_says_what_to_do(path: Path) -> None:
    with opened(path) as connection:
        migrate(connection, path, [FIRST, SECOND])
        with pytest.raises(CatalogNewer, match=r"schema version 2.* up to 1.*run the newer program.*v1\.bak"):
            migrate(connection, path, [FIRST])
        assert version(connection) == 2
