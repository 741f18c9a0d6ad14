"""The places of admitted connections: how many there are in all, by source, by tenant and by device."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from daemon.telemetry.metrics import ConnectionLimit

Member = TypeVar("Member", bound=Hashable)


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """How many connections may be admitted at a time. 0 sets no limit, except for `connections_max`."""

    connections_max: int
    connections_per_ip_max: int
    connections_per_tenant_max: int
    connections_per_device_max: int


class Places(Generic[Member]):
    """Who has a place."""

    __slots__ = ("_devices", "_members", "_sources", "_tenants")

    def __init__(self) -> None:
        self._members: dict[Member, tuple[str, tuple[str, str]]] = {}
        self._sources: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()
        self._devices: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: Member) -> bool:
        return member in self._members

    def take(
        self, member: Member, source: str, tenant: str, device: str, limits: PlaceLimits
    ) -> ConnectionLimit | None:
        """Give the member a place, or return the limit that is against it: the narrowest, which says the most."""
        key = tenant, device
        if 0 < limits.connections_per_device_max <= self._devices[key]:
            return ConnectionLimit.DEVICE
        if 0 < limits.connections_per_tenant_max <= self._tenants[tenant]:
            return ConnectionLimit.TENANT
        if 0 < limits.connections_per_ip_max <= self._sources[source]:
            return ConnectionLimit.ADDRESS
        if len(self._members) >= limits.connections_max:
            return ConnectionLimit.SERVER
        self._members[member] = source, key
        self._sources[source] += 1
        self._tenants[tenant] += 1
        self._devices[key] += 1
        return None

    def leave(self, member: Member) -> None:
        """Give the place back; harmless for a member without one."""
        place = self._members.pop(member, None)
        if place is None:
            return
        source, key = place
        for counter, counted in ((self._sources, source), (self._tenants, key[0])):
            counter[counted] -= 1
            if not counter[counted]:
                del counter[counted]
        self._devices[key] -= 1
        if not self._devices[key]:
            del self._devices[key]
