"""Constants that depend on each other agree."""

from enum import IntEnum

import pytest

from protocol import constants
from protocol.constants import Feature, FrameType, TlvType


@pytest.mark.parametrize("kinds", [FrameType, TlvType])
def test_no_type_is_in_the_private_range(kinds: type[IntEnum]) -> None:
    assert all(0 < kind < constants.PRIVATE_FIRST for kind in kinds)


def test_private_types_may_be_skipped() -> None:
    assert constants.PRIVATE_FIRST & constants.SKIPPABLE


def test_no_frame_of_the_first_version_may_be_skipped() -> None:
    assert not any(kind & constants.SKIPPABLE for kind in FrameType)


def test_only_fields_for_display_may_be_skipped() -> None:
    skippable = {kind for kind in TlvType if kind & constants.SKIPPABLE}
    assert skippable == {TlvType.AGENT, TlvType.AGENT_VERSION, TlvType.LAST_END, TlvType.TEXT}


def test_features_are_single_bits() -> None:
    assert all(feature.bit_count() == 1 for feature in Feature)


def test_an_unknown_size_is_not_a_valid_size() -> None:
    assert constants.SIZE_UNKNOWN > constants.OFFSET_MAX


def test_no_other_protocol_starts_with_the_magic() -> None:
    assert constants.MAGIC not in (b"GET ", b"POST", b"SSH-", b"\x16\x03\x01\x02")
