"""SQLite's own rows in memory, for the tests of what stands on a connection."""

import sqlite3
from dataclasses import replace

from daemon.catalog.records import Upload
from daemon.catalog.sqlite import changes, schema
from tests.support.catalog_samples import REQUEST


def memory_catalog() -> sqlite3.Connection:
    """A connection to an empty catalog in memory."""
    # The garbage collector may close it, on any thread.
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for migration in schema.load():
        connection.executescript(migration.sql)
    return connection


def create(connection: sqlite3.Connection, upload_id: int, name: str = "", **fields: object) -> Upload:
    """Open a new upload; its name is made of its id unless it is given."""
    request = replace(REQUEST, upload_id=upload_id, name=name or f"file-{upload_id}")
    opened = changes.open_upload(connection, replace(request, **fields)).upload  # type: ignore[arg-type]  # each value fits the field it names
    assert opened is not None
    return opened
