"""The frames as values have exactly the fields of their declarations."""

from dataclasses import FrozenInstanceError, fields
from typing import get_args

import pytest

from protocol import frames, layouts
from protocol.constants import MAGIC, SIZE_UNKNOWN, VERSION, CredentialKind, FrameType, UploadState


def frame_of(kind: FrameType) -> type[frames.ControlFrame]:
    [found] = [each for each in get_args(frames.ControlFrame) if each.__name__ == kind.name.capitalize()]
    assert isinstance(found, type)
    return found


@pytest.mark.parametrize("kind", layouts.CONTROL_LAYOUTS, ids=lambda kind: kind.name)
def test_a_frame_has_the_fields_of_its_declaration(kind: FrameType) -> None:
    layout = layouts.CONTROL_LAYOUTS[kind]
    declared = {field.name for field in layouts.fixed_fields(layout.fixed)} | {
        tlv.name.lower() for tlv in layout.fields
    }
    assert {field.name for field in fields(frame_of(kind))} == declared


@pytest.mark.parametrize("kind", layouts.CONTROL_LAYOUTS, ids=lambda kind: kind.name)
def test_optional_fields_may_be_left_out(kind: FrameType) -> None:
    layout = layouts.CONTROL_LAYOUTS[kind]
    optional = {tlv.name.lower() for tlv in layout.fields} - {tlv.name.lower() for tlv in layout.required}
    assert {field.name for field in fields(frame_of(kind)) if field.default is None} == optional


@pytest.mark.parametrize("kind", layouts.CHUNK_HEADERS, ids=lambda kind: kind.name)
def test_a_chunk_header_has_the_fields_of_its_declaration(kind: FrameType) -> None:
    declared = [field.name for field in layouts.fixed_fields(layouts.CHUNK_HEADERS[kind])]
    assert [field.name for field in fields(frames.ChunkHeader)] == declared


def test_frames_are_values() -> None:
    ping = frames.Ping(1)
    assert ping == frames.Ping(1)
    assert hash(ping) == hash(frames.Ping(1))
    with pytest.raises(FrozenInstanceError):
        ping.token = 2  # type: ignore[misc]  # the assignment that must fail


def test_defaults_are_those_of_the_first_version() -> None:
    hello = frames.Hello(CredentialKind.TOKEN, 0, 64)
    assert (hello.magic, hello.version_min, hello.version_max, hello.ack_ranges_max) == (MAGIC, VERSION, VERSION, 0)
    assert frames.Status(0, UploadState.NONE, 0).size == SIZE_UNKNOWN
