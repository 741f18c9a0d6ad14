"""The places of admitted connections: how many there are in all, by source, by tenant and by device."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from daemon.telemetry.metrics import ConnectionLimit


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """How many connections may be admitted at a time. 0 sets no limit, except for `connections_max`."""

    connections_max: int
    connections_per_ip_max: int
    connections_per_tenant_max: int
    connections_per_device_max: int


class Place(NamedTuple):
    """What one admitted connection counts for. `device` is tenant and device."""

    source: str
    device: tuple[str, str]


class Places:
    """How many places are taken."""

    __slots__ = ("_devices", "_sources", "_taken", "_tenants")

    def __init__(self) -> None:
        self._taken = 0
        self._sources: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()
        self._devices: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return self._taken

    def take(self, source: str, tenant: str, device: str, limits: PlaceLimits) -> Place | ConnectionLimit:
        """A place for one more connection, or the limit that is against it: the narrowest, which says the most."""
        key = tenant, device
        if 0 < limits.connections_per_device_max <= self._devices[key]:
            return ConnectionLimit.DEVICE
        if 0 < limits.connections_per_tenant_max <= self._tenants[tenant]:
            return ConnectionLimit.TENANT
        if 0 < limits.connections_per_ip_max <= self._sources[source]:
            return ConnectionLimit.ADDRESS
        if self._taken >= limits.connections_max:
            return ConnectionLimit.SERVER
        self._taken += 1
        self._sources[source] += 1
        self._tenants[tenant] += 1
        self._devices[key] += 1
        return Place(source, key)

    def leave(self, place: Place) -> None:
        """Give the place back."""
        self._taken -= 1
        for counter, counted in ((self._sources, place.source), (self._tenants, place.device[0])):
            counter[counted] -= 1
            if not counter[counted]:
                del counter[counted]
        self._devices[place.device] -= 1
        if not self._devices[place.device]:
            del self._devices[place.device]
