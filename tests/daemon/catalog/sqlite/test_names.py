"""What a name stands for is found by index, however often it was used."""

import sqlite3

import pytest

from daemon.catalog.records import State
from daemon.catalog.sqlite import changes
from daemon.catalog.sqlite.names import stands_for
from tests.support.catalog_samples import DEVICE, NAME, TENANT
from tests.support.memory_catalog import create

KEY = (TENANT, DEVICE, NAME)


@pytest.mark.parametrize("readable", [False, True])
def test_the_last_of_many_that_ended_is_found_without_reading_the_others(
    connection: sqlite3.Connection, readable: bool
) -> None:
    for upload_id in range(1, 101):
        create(connection, upload_id, NAME, now_ms=1_000 + 10 * upload_id)
        changes.end(connection, upload_id, State.ABORTED, 1_005 + 10 * upload_id, None)
    statement = f"SELECT {stands_for('?1', '?2', '?3', readable=readable)}"
    assert connection.execute(statement, KEY).fetchone() == (100,)
    steps = [str(step[3]) for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", KEY)]
    assert [each for each in steps if "uploads_ended (tenant=? AND device=? AND name=?)" in each]
    assert not [each for each in steps if each.startswith("SCAN") and "CONSTANT ROW" not in each]
    assert not [each for each in steps if "TEMP B-TREE" in each]


def test_a_name_that_was_never_used_stands_for_nothing(connection: sqlite3.Connection) -> None:
    assert connection.execute(f"SELECT {stands_for('?1', '?2', '?3')}", KEY).fetchone() == (None,)
