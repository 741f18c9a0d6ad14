"""Who gets a place, and which limit is against it."""

import pytest

from daemon.tcp.places import PlaceLimits, Places
from daemon.telemetry.metrics import ConnectionLimit

UNLIMITED = PlaceLimits(100, 0, 0, 0)


@pytest.mark.parametrize(
    ("limits", "against"),
    [
        (PlaceLimits(1, 0, 0, 0), ConnectionLimit.SERVER),
        (PlaceLimits(1, 1, 0, 0), ConnectionLimit.ADDRESS),
        (PlaceLimits(1, 1, 1, 0), ConnectionLimit.TENANT),
        (PlaceLimits(1, 1, 1, 1), ConnectionLimit.DEVICE),
        (UNLIMITED, None),
    ],
)
def test_the_narrowest_limit_is_named(limits: PlaceLimits, against: ConnectionLimit | None) -> None:
    places: Places[int] = Places()
    assert places.take(1, "192.0.2.1", "plant", "pump", limits) is None
    assert places.take(2, "192.0.2.1", "plant", "pump", limits) is against
    assert len(places) == (2 if against is None else 1)


@pytest.mark.parametrize(
    "other", [("192.0.2.2", "plant", "pump"), ("192.0.2.1", "mill", "pump"), ("192.0.2.1", "plant", "fan")]
)
def test_a_device_is_known_by_tenant_and_name(other: tuple[str, str, str]) -> None:
    limits = PlaceLimits(100, 0, 0, 1)
    places: Places[int] = Places()
    places.take(1, "192.0.2.1", "plant", "pump", limits)
    is_same = other[1:] == ("plant", "pump")
    assert (places.take(2, *other, limits) is ConnectionLimit.DEVICE) is is_same


def test_who_leaves_makes_room_and_leaves_nothing_behind() -> None:
    limits = PlaceLimits(1, 1, 1, 1)
    places: Places[int] = Places()
    places.take(1, "192.0.2.1", "plant", "pump", limits)
    assert 1 in places
    places.leave(1)
    places.leave(1)
    assert not (places._sources or places._tenants or places._devices)
    assert places.take(2, "192.0.2.1", "plant", "pump", limits) is None
