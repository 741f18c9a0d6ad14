"""Events are values: they are equal by content and cannot be changed."""

from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import get_args

import pytest

from protocol.constants import ChecksumKind
from protocol.errors import ErrorCode
from protocol.events import ChunkRefused, ChunksReceived, ClientEvent, ServerEvent

EVENTS = (*get_args(ServerEvent), *get_args(ClientEvent))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_is_a_frozen_record_with_slots(event: type) -> None:
    assert is_dataclass(event)
    assert set(fields(event)) and "__slots__" in vars(event)
    assert event.__dataclass_params__.frozen  # type: ignore[attr-defined]  # typeshed does not declare it
    assert event.__doc__


def test_no_event_belongs_to_both_ends() -> None:
    assert not set(get_args(ServerEvent)) & set(get_args(ClientEvent))


def test_events_with_equal_data_are_equal_whatever_the_buffer() -> None:
    owned = ChunksReceived(1, 0, 4, (b"data",), 1, ChecksumKind.SUM8, None)
    borrowed = ChunksReceived(1, 0, 4, (memoryview(bytearray(b"data")),), 1, ChecksumKind.SUM8, None)
    assert owned == borrowed


def test_an_event_cannot_be_changed() -> None:
    event = ChunkRefused(1, ErrorCode.CHUNK_CORRUPT)
    with pytest.raises(FrozenInstanceError):
        event.stream = 2  # type: ignore[misc]  # the assignment that must fail
