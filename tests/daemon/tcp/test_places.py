"""Who gets a place, and which limit is against it."""

import pytest

from daemon.tcp.places import Place, PlaceLimits, Places
from daemon.telemetry.metrics import ConnectionLimit

UNLIMITED = PlaceLimits(100, 0, 0, 0)
PLACE = Place("192.0.2.1", ("plant", "pump"))


@pytest.mark.parametrize(
    ("limits", "answer"),
    [
        (PlaceLimits(1, 0, 0, 0), ConnectionLimit.SERVER),
        (PlaceLimits(1, 1, 0, 0), ConnectionLimit.ADDRESS),
        (PlaceLimits(1, 1, 1, 0), ConnectionLimit.TENANT),
        (PlaceLimits(1, 1, 1, 1), ConnectionLimit.DEVICE),
        (UNLIMITED, PLACE),
    ],
)
def test_the_narrowest_limit_is_named(limits: PlaceLimits, answer: ConnectionLimit | Place) -> None:
    places = Places()
    assert places.take("192.0.2.1", "plant", "pump", limits) == PLACE
    assert places.take("192.0.2.1", "plant", "pump", limits) == answer
    assert len(places) == (2 if answer == PLACE else 1)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (("192.0.2.2", "plant", "pump"), True),
        (("192.0.2.1", "mill", "pump"), False),
        (("192.0.2.1", "plant", "fan"), False),
    ],
)
def test_a_device_is_known_by_tenant_and_name(other: tuple[str, str, str], is_same: bool) -> None:
    limits = PlaceLimits(100, 0, 0, 1)
    places = Places()
    places.take("192.0.2.1", "plant", "pump", limits)
    assert (places.take(*other, limits) is ConnectionLimit.DEVICE) is is_same


def test_who_leaves_makes_room_and_leaves_nothing_behind() -> None:
    places = Places()
    places.take("192.0.2.1", "plant", "pump", PlaceLimits(1, 1, 1, 1))
    places.leave(PLACE)
    assert len(places) == 0
    assert not (places._sources or places._tenants or places._devices)


def test_a_refusal_leaves_nothing_behind() -> None:
    places = Places()
    assert places.take("192.0.2.1", "plant", "pump", PlaceLimits(0, 1, 1, 1)) is ConnectionLimit.SERVER
    assert not (places._sources or places._tenants or places._devices)
