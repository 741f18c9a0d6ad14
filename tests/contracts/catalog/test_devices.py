"""Devices are enrolled once, and disabled whether or not they ever were."""

from dataclasses import replace

import pytest

from daemon.catalog.interface import Catalog
from daemon.catalog.records import Device
from tests.support.catalog_samples import TENANT

PUMP = Device(TENANT, "pump", b"k" * 32, 1_000)


async def test_a_device_is_enrolled_once(catalog: Catalog) -> None:
    assert await catalog.add_device(PUMP)
    other_key = Device(TENANT, "pump", b"x" * 32, 2_000)
    assert not await catalog.add_device(other_key)
    assert await catalog.device(TENANT, "pump") == PUMP
    assert await catalog.device("other", "pump") is None
    assert await catalog.add_device(other_key, replace=True)
    assert await catalog.device(TENANT, "pump") == replace(other_key, generation=2)


async def test_the_secrets_that_a_device_was_given_are_counted(catalog: Catalog) -> None:
    await catalog.set_disabled(TENANT, "pump", True, 500)
    await catalog.add_device(PUMP)
    assert await catalog.replaced() == {}
    for _ in range(2):
        await catalog.add_device(PUMP, replace=True)
    assert await catalog.replaced() == {(TENANT, "pump"): 3}
    await catalog.set_disabled(TENANT, "pump", False, 600)
    assert await catalog.device(TENANT, "pump") == replace(PUMP, generation=3)


async def test_devices_are_listed_by_tenant_and_name(catalog: Catalog) -> None:
    valve, foreign = Device(TENANT, "valve", b"v" * 32, 1), Device("acme", "pump", b"f" * 32, 1)
    for each in (valve, PUMP, foreign):
        await catalog.add_device(each)
    assert await catalog.list_devices(TENANT) == [PUMP, valve]
    assert await catalog.list_devices() == [foreign, PUMP, valve]


async def test_a_device_is_disabled_and_enabled(catalog: Catalog) -> None:
    await catalog.add_device(PUMP)
    assert await catalog.set_disabled(TENANT, "pump", True, 5_000)
    assert not await catalog.set_disabled(TENANT, "pump", True, 6_000)
    assert await catalog.device(TENANT, "pump") == Device(TENANT, "pump", PUMP.key, 1_000, 5_000)
    assert await catalog.disabled() == {(TENANT, "pump")}
    assert await catalog.set_disabled(TENANT, "pump", False, 7_000)
    assert not await catalog.set_disabled(TENANT, "pump", False, 8_000)
    assert await catalog.disabled() == frozenset()
    assert await catalog.device(TENANT, "pump") == PUMP


async def test_a_device_that_was_disabled_before_it_was_enrolled_stays_so(catalog: Catalog) -> None:
    assert await catalog.set_disabled(TENANT, "pump", True, 500)
    assert await catalog.device(TENANT, "pump") == Device(TENANT, "pump", None, 500, 500, generation=0)
    assert await catalog.add_device(PUMP)
    assert await catalog.device(TENANT, "pump") == Device(TENANT, "pump", PUMP.key, 1_000, 500)


@pytest.mark.parametrize("tenant", [TENANT, "never-seen"])
async def test_enabling_an_unknown_device_does_nothing(catalog: Catalog, tenant: str) -> None:
    assert not await catalog.set_disabled(tenant, "ghost", False, 1)
    assert await catalog.list_devices() == []
