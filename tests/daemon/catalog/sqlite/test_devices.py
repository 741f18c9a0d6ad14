"""Of many devices the few that are disabled, or have a new secret, are found by index."""

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
    assert "USING INDEX devices_disabled" in _plan(connection, statements)


def test_those_with_a_new_secret_are_found_without_reading_the_others(connection: sqlite3.Connection) -> None:
    for number in range(10):
        devices.add_device(connection, Device(TENANT, f"pump-{number}", b"k" * 32, 1_000))
    devices.add_device(connection, Device(TENANT, "pump-3", b"x" * 32, 2_000), replace=True)
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    assert devices.replaced_devices(connection) == {(TENANT, "pump-3"): 2}
    connection.set_trace_callback(None)
    assert "USING COVERING INDEX devices_replaced" in _plan(connection, statements)


def _plan(connection: sqlite3.Connection, statements: list[str]) -> str:
    (statement,) = statements
    ((*_, step),) = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
    return str(step)
