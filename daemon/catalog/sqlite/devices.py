"""Devices: enrolled, or merely disabled."""

import sqlite3
from collections.abc import Mapping, Sequence

from daemon.catalog.records import Device

_SELECT = "SELECT tenant, device, key, created_ms, disabled_ms, generation FROM devices"


def add_device(connection: sqlite3.Connection, device: Device, replace: bool = False) -> bool:
    """See `Catalog.add_device`."""
    done = connection.execute(
        "INSERT INTO devices (tenant, device, key, created_ms, disabled_ms, generation) VALUES (?, ?, ?, ?, ?, 1) "
        "ON CONFLICT DO UPDATE SET key = excluded.key, created_ms = excluded.created_ms, generation = generation + 1 "
        "WHERE key IS NULL OR ?",
        (device.tenant, device.device, device.key, device.created_ms, device.disabled_ms, replace),
    )
    return done.rowcount > 0


def get_device(connection: sqlite3.Connection, tenant: str, device: str) -> Device | None:
    """See `Catalog.device`."""
    row = connection.execute(f"{_SELECT} WHERE tenant = ? AND device = ?", (tenant, device)).fetchone()
    return Device(*row) if row else None


def list_devices(connection: sqlite3.Connection, tenant: str | None) -> Sequence[Device]:
    """See `Catalog.list_devices`."""
    if tenant is None:
        rows = connection.execute(f"{_SELECT} ORDER BY tenant, device")
    else:
        rows = connection.execute(f"{_SELECT} WHERE tenant = ? ORDER BY device", (tenant,))
    return [Device(*row) for row in rows.fetchall()]


def set_disabled(connection: sqlite3.Connection, tenant: str, device: str, disabled: bool, now_ms: int) -> bool:
    """See `Catalog.set_disabled`."""
    if disabled:
        done = connection.execute(
            "INSERT INTO devices (tenant, device, key, created_ms, disabled_ms, generation) "
            "VALUES (?, ?, NULL, ?, ?, 0) "
            "ON CONFLICT DO UPDATE SET disabled_ms = excluded.disabled_ms WHERE disabled_ms IS NULL",
            (tenant, device, now_ms, now_ms),
        )
    else:
        done = connection.execute(
            "UPDATE devices SET disabled_ms = NULL WHERE tenant = ? AND device = ? AND disabled_ms IS NOT NULL",
            (tenant, device),
        )
    return done.rowcount > 0


def disabled_devices(connection: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    """See `Catalog.disabled`."""
    rows = connection.execute(
        "SELECT tenant, device FROM devices INDEXED BY devices_disabled WHERE disabled_ms IS NOT NULL"
    )
    return frozenset((tenant, device) for tenant, device in rows.fetchall())


def replaced_devices(connection: sqlite3.Connection) -> Mapping[tuple[str, str], int]:
    """See `Catalog.replaced`."""
    rows = connection.execute(
        "SELECT tenant, device, generation FROM devices INDEXED BY devices_replaced WHERE generation > 1"
    )
    return {(tenant, device): generation for tenant, device, generation in rows.fetchall()}
