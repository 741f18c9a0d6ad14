"""Frames as values."""

from dataclasses import FrozenInstanceError, fields

import pytest

from protocol import frames, layouts
from protocol.constants import MAGIC, SIZE_UNKNOWN, VERSION, CredentialKind, FrameType, UploadState


@pytest.mark.parametrize("kind", frames.CHUNK_HEADERS, ids=lambda kind: kind.name)
def test_a_chunk_header_has_the_fields_of_its_declaration(kind: FrameType) -> None:
    declared = [field.name for field in layouts.fixed_fields(frames.CHUNK_HEADERS[kind])]
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
