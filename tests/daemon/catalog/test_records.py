"""What records say of themselves."""

import pytest

from daemon.catalog.records import ENDINGS, PAGE_ROWS_MAX, Device, ListQuery, State
from protocol.ranges import DigestedRange
from tests.support.catalog_samples import TENANT, first_bytes, upload


def test_next_expected_byte_is_the_end_of_the_range_at_zero() -> None:
    assert upload(ranges=(DigestedRange(0, 10, 1), DigestedRange(20, 30, 1))).next_expected_byte == 10
    assert upload(ranges=(DigestedRange(20, 30, 1),)).next_expected_byte == 0
    assert upload().next_expected_byte == 0


def test_received_bytes_are_those_of_all_ranges() -> None:
    assert upload(ranges=(DigestedRange(0, 10, 1), DigestedRange(20, 30, 1))).received_bytes == 20


@pytest.mark.parametrize(
    ("state", "size", "received", "held"),
    [
        (State.RECEIVING, 100, 40, 100),
        (State.PARTIAL, None, 40, 40),
        (State.REJECTED, 100, 40, 100),
        (State.COMPLETE, 100, 100, 100),
        (State.ABORTED, 100, 40, 0),
        (State.DELETED, 100, 40, 0),
        (State.EXPIRED, 100, 40, 0),
    ],
)
def test_held_bytes_are_the_greater_of_declared_and_received_while_there_are_any(
    state: State, size: int | None, received: int, held: int
) -> None:
    assert upload(state, size=size, ranges=first_bytes(received)).held_bytes == held


def test_nothing_leads_out_of_a_tombstone_or_back_to_receiving() -> None:
    assert set(ENDINGS) == {State.RECEIVING, State.PARTIAL, State.COMPLETE, State.REJECTED}
    reached = frozenset[State]().union(*ENDINGS.values())
    assert State.RECEIVING not in reached
    assert State.COMPLETE not in reached


@pytest.mark.parametrize("limit", [0, -1, PAGE_ROWS_MAX + 1])
def test_a_page_has_a_length_that_can_be_served(limit: int) -> None:
    with pytest.raises(ValueError, match=f"a page of {limit} uploads"):
        ListQuery(TENANT, limit)


def test_a_device_does_not_show_its_key() -> None:
    assert "secret" not in repr(Device(TENANT, "pump", b"secret", 1))
