"""construct and the codec agree on any values, frames round-trip, and bad bytes are only ever refused."""

from dataclasses import fields
from enum import IntEnum
from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, frames, layouts
from protocol.constants import Action, Disposition, Durability, FrameType, TlvType, UploadState
from protocol.errors import ErrorCode
from protocol.exceptions import ProtocolError
from protocol.ranges import Span
from tests.support.vectors import build, to_json

ENUMERATED: dict[str, type[IntEnum]] = {
    "action": Action,
    "disposition": Disposition,
    "durability": Durability,
    "state": UploadState,
    "previous": UploadState,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SPANS = st.tuples(st.integers(0, 2**63 - 2), st.integers(1, 2**32)).map(lambda each: Span(each[0], each[0] + each[1]))
OPTIONAL: dict[str, st.SearchStrategy[object]] = {
    "nonce": st.binary(min_size=32, max_size=32),
    "tag": st.binary(max_size=32),
    "sha256": st.binary(min_size=32, max_size=32),
    "crc32c": st.integers(0, 2**32 - 1),
    "last_end": st.integers(0, 2**16 - 1),
    "ranges": st.lists(SPANS, max_size=4).map(tuple),
}
CONTROL = list(layouts.CONTROL_LAYOUTS)


def fixed_value(field: layouts.FixedField) -> st.SearchStrategy[object]:
    if field.name in ENUMERATED:
        return st.sampled_from(ENUMERATED[field.name])
    if field.format.endswith("s"):
        return st.binary(min_size=field.size_bytes, max_size=field.size_bytes)
    top = 256**field.size_bytes - 1
    return st.integers(0, top) | st.sampled_from([0, 1, top // 2, top // 2 + 1, top])


def control_frames(kind: FrameType) -> st.SearchStrategy[frames.ControlFrame]:
    """Any frame of this type, with any of its optional fields."""
    layout = layouts.CONTROL_LAYOUTS[kind]
    required = {field.name: fixed_value(field) for field in layouts.fixed_fields(layout.fixed)}
    optional: dict[str, st.SearchStrategy[object]] = {}
    for tlv in layout.fields:
        value = OPTIONAL.get(tlv.name.lower(), TEXT)
        (required if tlv in layout.required else optional)[tlv.name.lower()] = value
    frame = type(codec.decode(kind, minimal_body(kind)))
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: frame(**values))  # type: ignore[arg-type]  # values come from the declaration


def minimal_body(kind: FrameType) -> bytes:
    layout = layouts.CONTROL_LAYOUTS[kind]
    body = b"".join(
        b"\x01".rjust(field.size_bytes, b"\0") for field in layouts.fixed_fields(layout.fixed)
    )  # 1 is a member of every enumeration
    return body + b"".join(bytes([tlv, 0, 1]) + b"n" for tlv in layout.required)


STREAMS = st.integers(0, 65535)


@pytest.mark.parametrize("kind", CONTROL, ids=lambda kind: kind.name)
@given(data=st.data(), stream=STREAMS)
def test_the_codec_and_construct_write_the_same_bytes(kind: FrameType, data: st.DataObject, stream: int) -> None:
    frame = data.draw(control_frames(kind))
    raw = codec.encode(frame, stream)
    assert build(kind, stream, to_json(kind, frame)) == raw
    assert codec.decode(kind, raw[codec.PREFIX_BYTES :]) == frame


@pytest.mark.parametrize("kind", CONTROL, ids=lambda kind: kind.name)
@given(data=st.data())
def test_construct_reads_what_the_codec_reads(kind: FrameType, data: st.DataObject) -> None:
    frame = data.draw(control_frames(kind))
    layout = layouts.CONTROL_LAYOUTS[kind].fixed
    raw = codec.encode(frame)
    parsed = layout.parse(raw[codec.PREFIX_BYTES :])
    for field in layouts.fixed_fields(layout):
        assert parsed[field.name] == getattr(frame, field.name)


@pytest.mark.parametrize("kind", frames.CHUNK_HEADERS, ids=lambda kind: kind.name)
@given(data=st.data(), stream=STREAMS)
def test_struct_and_construct_write_the_same_chunk_headers(kind: FrameType, data: st.DataObject, stream: int) -> None:
    declared = frames.CHUNK_HEADERS[kind]
    values = {field.name: data.draw(fixed_value(field)) for field in layouts.fixed_fields(declared)}
    built = bytes(declared.build(values))
    struct: Struct = codec.CHUNK_HEADERS[kind]
    assert struct.pack(*values.values()) == built
    prefix = bytes(frames.PREFIX.build({"type": kind, "flags": 0, "stream": stream, "length": len(built)}))
    assert codec.CHUNK_FRAMES[kind].unpack(prefix + built) == (kind, 0, stream, len(built), *values.values())


@pytest.mark.parametrize("kind", CONTROL, ids=lambda kind: kind.name)
@given(data=st.data())
def test_a_cut_frame_fits_the_limit_and_loses_only_optional_fields(kind: FrameType, data: st.DataObject) -> None:
    frame = data.draw(control_frames(kind))
    layout = layouts.CONTROL_LAYOUTS[kind]
    least = codec.PREFIX_BYTES + layout.fixed.sizeof()
    limit = data.draw(st.integers(least, least + 120))
    raw = codec.encode(frame, 0, limit)
    assert len(raw) <= limit
    if layout.required:
        return
    cut = codec.decode(kind, raw[codec.PREFIX_BYTES :])
    for field in fields(frame):
        kept, whole = getattr(cut, field.name), getattr(frame, field.name)
        if field.name == "ranges" and kept is not None:
            assert kept == whole[: len(kept)]
        elif field.name.upper() in TlvType.__members__ and TlvType[field.name.upper()] in layout.fields:
            assert kept in (None, whole)
        else:
            assert kept == whole


@pytest.mark.parametrize("kind", CONTROL, ids=lambda kind: kind.name)
@given(noise=st.binary(max_size=80), cut=st.integers(0, 80))
def test_any_bytes_either_decode_or_are_refused_as_malformed(kind: FrameType, noise: bytes, cut: int) -> None:
    for body in (noise, minimal_body(kind)[:cut] + noise):
        try:
            frame = codec.decode(kind, body)
        except ProtocolError as refused:
            assert refused.code is ErrorCode.FRAME_MALFORMED
        else:
            assert codec.decode(kind, codec.encode(frame)[codec.PREFIX_BYTES :]) == frame
