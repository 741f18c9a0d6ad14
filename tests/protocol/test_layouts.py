"""Layout declarations: complete, with the sizes that devices already use, and within the smallest frame."""

from dataclasses import make_dataclass

import pytest

from protocol import frames, layouts
from protocol.constants import FRAME_BYTES_MIN, FrameType, TlvType, UploadState

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
    assert set(frames.CHUNK_HEADERS) == set(CHUNK_TYPES)
    assert set(layouts.CONTROL_LAYOUTS) == set(FrameType) - set(CHUNK_TYPES)


def test_every_optional_field_belongs_to_a_frame() -> None:
    assert {field for layout in layouts.CONTROL_LAYOUTS.values() for field in layout.fields} == set(TlvType)


def test_required_fields_are_declared() -> None:
    assert all(set(layout.required) <= set(layout.fields) for layout in layouts.CONTROL_LAYOUTS.values())


@pytest.mark.parametrize(("kind", "size"), list(zip(CHUNK_TYPES, (17, 9, 20), strict=True)))
def test_chunk_headers_have_the_sizes_that_devices_use(kind: FrameType, size: int) -> None:
    assert frames.CHUNK_HEADERS[kind].sizeof() == size


def test_the_prefix_is_eight_bytes_long() -> None:
    assert frames.PREFIX.sizeof() == 8


@pytest.mark.parametrize("kind", FROM_SERVER)
def test_an_answer_without_optional_fields_fits_the_smallest_frame(kind: FrameType) -> None:
    assert frames.PREFIX.sizeof() + layouts.CONTROL_LAYOUTS[kind].fixed.sizeof() <= FRAME_BYTES_MIN


def test_the_crc_of_a_complete_file_fits_the_smallest_frame() -> None:
    crc_field_bytes = frames.TLV_HEADER.sizeof() + 4
    opened = layouts.CONTROL_LAYOUTS[FrameType.OPENED].fixed.sizeof()
    assert frames.PREFIX.sizeof() + opened + crc_field_bytes <= FRAME_BYTES_MIN


def test_fixed_fields_have_formats_and_sizes() -> None:
    assert layouts.fixed_fields(frames.TLV_HEADER) == (
        layouts.FixedField("type", "B", 1),
        layouts.FixedField("length", "H", 2),
    )
    assert layouts.fixed_fields(layouts.CONTROL_LAYOUTS[FrameType.PROOF].fixed) == (
        layouts.FixedField("proof", "32s", 32),
    )


def test_a_layout_is_read_from_the_declaration_of_its_frame() -> None:
    opened = layouts.control_layout(frames.Opened)
    assert opened.frame is frames.Opened
    assert [(each.name, each.format) for each in layouts.fixed_fields(opened.fixed)] == [
        ("upload_id", "Q"),
        ("state", "B"),
        ("previous", "B"),
        ("next_expected_byte", "Q"),
        ("expires_s", "L"),
    ]
    assert opened.enumerations == (("state", UploadState), ("previous", UploadState))
    assert opened.fields == (TlvType.CRC32C, TlvType.RANGES, TlvType.SHA256)
    assert opened.required == ()


def test_an_optional_field_without_a_default_is_required() -> None:
    required = {kind: layout.required for kind, layout in layouts.CONTROL_LAYOUTS.items() if layout.required}
    assert required == {
        FrameType.REFRESH: (TlvType.TOKEN,),
        FrameType.OPEN: (TlvType.NAME,),
        FrameType.QUERY: (TlvType.NAME,),
    }


def test_a_credential_kind_may_be_any_number() -> None:
    assert layouts.CONTROL_LAYOUTS[FrameType.HELLO].enumerations == ()


def test_a_field_that_is_neither_fixed_nor_a_tlv_is_an_error() -> None:
    with pytest.raises(KeyError, match="COLOUR"):
        layouts.control_layout(make_dataclass("Paint", [("colour", int)]))
