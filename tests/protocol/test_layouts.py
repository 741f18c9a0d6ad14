"""The declarations: complete, of the sizes that devices already speak, and within the smallest frame."""

import pytest

from protocol import layouts
from protocol.constants import FRAME_BYTES_MIN, FrameType, TlvType

CHUNK_TYPES = (FrameType.CHUNK, FrameType.CHUNK_COMPACT, FrameType.CHUNK_CRC32C)
FROM_SERVER = (
    FrameType.WELCOME,
    FrameType.CHALLENGE,
    FrameType.REFUSED,
    FrameType.REFRESHED,
    FrameType.OPENED,
    FrameType.VERIFYING,
    FrameType.FINISHED,
    FrameType.STATUS,
    FrameType.ABORTED,
    FrameType.ACK,
    FrameType.NACK,
    FrameType.PING,
    FrameType.PONG,
    FrameType.GOAWAY,
    FrameType.ERROR,
)


def test_every_frame_is_declared_once() -> None:
    assert set(layouts.CHUNK_HEADERS) == set(CHUNK_TYPES)
    assert set(layouts.CONTROL_LAYOUTS) == set(FrameType) - set(CHUNK_TYPES)


def test_every_optional_field_is_known_to_a_frame() -> None:
    assert {field for layout in layouts.CONTROL_LAYOUTS.values() for field in layout.fields} == set(TlvType)


def test_required_fields_are_known_ones() -> None:
    assert all(set(layout.required) <= set(layout.fields) for layout in layouts.CONTROL_LAYOUTS.values())


@pytest.mark.parametrize(("kind", "size"), list(zip(CHUNK_TYPES, (17, 9, 20), strict=True)))
def test_chunk_headers_have_the_sizes_of_the_field(kind: FrameType, size: int) -> None:
    assert layouts.CHUNK_HEADERS[kind].sizeof() == size


def test_the_prefix_has_eight_bytes() -> None:
    assert layouts.PREFIX.sizeof() == 8


@pytest.mark.parametrize("kind", FROM_SERVER)
def test_an_answer_without_optional_fields_fits_the_smallest_frame(kind: FrameType) -> None:
    assert layouts.PREFIX.sizeof() + layouts.CONTROL_LAYOUTS[kind].fixed.sizeof() <= FRAME_BYTES_MIN


def test_the_crc_of_a_complete_file_fits_the_smallest_frame() -> None:
    crc_field_bytes = layouts.TLV_HEADER.sizeof() + 4
    opened = layouts.CONTROL_LAYOUTS[FrameType.OPENED].fixed.sizeof()
    assert layouts.PREFIX.sizeof() + opened + crc_field_bytes <= FRAME_BYTES_MIN


def test_fixed_fields_name_formats_and_sizes() -> None:
    assert layouts.fixed_fields(layouts.TLV_HEADER) == (
        layouts.FixedField("type", "B", 1),
        layouts.FixedField("length", "H", 2),
    )
    assert layouts.fixed_fields(layouts.CONTROL_LAYOUTS[FrameType.PROOF].fixed) == (
        layouts.FixedField("proof", "32s", 32),
    )
