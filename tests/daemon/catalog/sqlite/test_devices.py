"""Devices are enrolled once, and disabled whether or not they ever were."""

import sqlite3

import pytest

from daemon.catalog.records import Device
from daemon.catalog.sqlite import devices
from tests.support.catalog_samples import TENANT

PUMP = Device(TENANT, "pump", b"k" * 32, 1_000)


def test_a_device_is_enrolled_once(connection: sqlite3.Connection) -> None:
    assert devices.add_device(connection, PUMP)
    assert not devices.add_device(connection, Device(TENANT, "pump", b"x" * 32, 2_000))
    assert devices.get_device(connection, TENANT, "pump") == PUMP
    assert devices.get_device(connection, "other", "pump") is None


def test_devices_are_listed_by_tenant_and_name(connection: sqlite3.Connection) -> None:
    valve, foreign = Device(TENANT, "valve", b"v" * 32, 1), Device("acme", "pump", b"f" * 32, 1)
    for each in (valve, PUMP, foreign):
        devices.add_device(connection, each)
    assert devices.list_devices(connection, TENANT) == [PUMP, valve]
    assert devices.list_devices(connection, None) == [foreign, PUMP, valve]


def test_a_device_is_disabled_and_enabled(connection: sqlite3.Connection) -> None:
    devices.add_device(connection, PUMP)
    assert devices.set_disabled(connection, TENANT, "pump", True, 5_000)
    assert not devices.set_disabled(connection, TENANT, "pump", True, 6_000)
    found = devices.get_device(connection, TENANT, "pump")
    assert found is not None
    assert (found.disabled_ms, found.key) == (5_000, PUMP.key)
    assert devices.disabled_devices(connection) == {(TENANT, "pump")}
    assert devices.set_disabled(connection, TENANT, "pump", False, 7_000)
    assert not devices.set_disabled(connection, TENANT, "pump", False, 8_000)
    assert devices.disabled_devices(connection) == frozenset()
    assert devices.get_device(connection, TENANT, "pump") == PUMP


def test_a_device_that_was_disabled_before_it_was_enrolled_stays_so(connection: sqlite3.Connection) -> None:
    assert devices.set_disabled(connection, TENANT, "pump", True, 500)
    assert devices.get_device(connection, TENANT, "pump") == Device(TENANT, "pump", None, 500, 500)
    assert devices.add_device(connection, PUMP)
    assert devices.get_device(connection, TENANT, "pump") == Device(TENANT, "pump", PUMP.key, 1_000, 500)


@pytest.mark.parametrize("tenant", [TENANT, "never-seen"])
def test_enabling_an_unknown_device_does_nothing(connection: sqlite3.Connection, tenant: str) -> None:
    assert not devices.set_disabled(connection, tenant, "ghost", False, 1)
    assert devices.list_devices(connection, None) == []
