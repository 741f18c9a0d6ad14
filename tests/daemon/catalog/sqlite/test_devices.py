"""Of many devices the few that are disabled are found by index."""

import sqlite3

from daemon.catalog.records import Device
from daemon.catalog.sqlite import devices
from tests.support.catalog_samples import TENANT


def test_the_disabled_are_found_without_reading_the_others(connection: sqlite3.Connection) -> None:
    for number in range(10):
        devices.add_device(connection, Device(TENANT, f"pump-{number}", b"k" * 32, 1_000))
    devices.set_disabled(connection, TENANT, "pump-3", True, 2_000)
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    assert devices.disabled_devices(connection) == {(TENANT, "pump-3")}
    connection.set_trace_callback(None)
    (statement,) = statements
    ((*_, step),) = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
    assert "USING INDEX devices_disabled" in step
