"""Every vector, against construct, the codec and the server."""

import hashlib
import hmac

import pytest

from protocol import codec, frames
from protocol.checksum import crc32c, crc32c_combine, sum8
from protocol.constants import SIZE_UNKNOWN, Action, FrameType, TlvType
from protocol.errors import ErrorCode, ErrorScope
from protocol.events import ChunksReceived
from protocol.exceptions import ProtocolError
from protocol.handshake import device_key, prove
from tests.support.server_rig import ServerRig, open_stream, welcomed
from tests.support.vectors import Case, build, load, to_json

FRAMES = load("frames.json")
CHUNKS = load("chunks.json")
REFUSALS = load("refusals.json")
HANDSHAKES = load("handshake.json")
CHECKSUMS = load("checksums.json")


def named(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def opened_for(case: Case) -> ServerRig:
    """A server's end with the stream of the case open."""
    rig = welcomed()
    open_stream(rig, case.number("stream"), case.number("size") if "size" in case.members else SIZE_UNKNOWN)
    return rig


def chunk_bytes(case: Case) -> bytes:
    return case.octets("data") if "data" in case.members else b""


@named([case for case in FRAMES if case.members.get("canonical", True)] + [c for c in CHUNKS if "fields" in c.members])
def test_construct_builds_the_same_bytes(case: Case) -> None:
    kind = FrameType(case.octets("hex")[0])
    built = build(kind, case.number("stream"), case.record("fields"), chunk_bytes(case))
    assert built.hex() == case.text("hex")


@named(FRAMES)
def test_a_valid_frame_decodes_to_its_fields(case: Case) -> None:
    raw = case.octets("hex")
    code, flags, stream, length = codec.PREFIX.unpack_from(raw)
    kind = FrameType(code)
    assert {"name": kind.name, "value": code} == case.record("type")
    assert (flags, stream, length) == (0, case.number("stream"), len(raw) - codec.PREFIX_BYTES)
    assert to_json(kind, codec.decode(kind, raw[codec.PREFIX_BYTES :])) == case.record("fields")


@named([case for case in FRAMES if case.members.get("canonical", True)])
def test_a_valid_frame_encodes_to_its_bytes(case: Case) -> None:
    raw = case.octets("hex")
    frame = codec.decode(FrameType(raw[0]), raw[codec.PREFIX_BYTES :])
    assert codec.encode(frame, case.number("stream")).hex() == case.text("hex")


@named([case for case in CHUNKS if case.members["valid"]])
def test_a_valid_chunk_is_accepted(case: Case) -> None:
    stream, raw, data = case.number("stream"), case.octets("hex"), case.octets("data")
    kind = FrameType(raw[0])
    header = frames.ChunkHeader(*codec.CHUNK_HEADERS[kind].unpack_from(raw, codec.PREFIX_BYTES))
    assert to_json(kind, header) == case.record("fields")
    rig = opened_for(case)
    [event] = rig.feed(raw)
    assert isinstance(event, ChunksReceived)
    assert (event.stream, event.start, event.end) == (stream, header.start_byte, header.end_byte + 1)
    assert b"".join(event.data) == data
    assert rig.sent() == []


@named([case for case in CHUNKS if case.members["valid"] and case.name.split()[0] in FrameType.__members__])
def test_a_valid_chunk_encodes_to_its_bytes(case: Case) -> None:
    raw, data = case.octets("hex"), case.octets("data")
    start = int(str(case.record("fields")["start_byte"]))
    encoded = codec.encode_chunk_header(FrameType(raw[0]), case.number("stream"), start, data)
    assert (encoded + data).hex() == case.text("hex")


@named([case for case in CHUNKS if not case.members["valid"]])
def test_a_bad_chunk_is_refused_and_the_connection_stays_open(case: Case) -> None:
    stream = case.number("stream")
    rig = opened_for(case)
    events = rig.feed(case.octets("hex"))
    assert not any(isinstance(event, ChunksReceived) for event in events)
    [(answered, answer)] = rig.sent()
    assert answered == stream
    assert isinstance(answer, frames.Nack if case.text("scope") == ErrorScope.CHUNK.value else frames.Error)
    assert answer.code == case.record("error")["value"]
    assert (stream in rig.connection.streams) is (case.text("scope") == ErrorScope.CHUNK.value)
    rig.feed(codec.encode(frames.Ping(7)))
    assert rig.sent() == [(0, frames.Pong(7))]


@named([case for case in REFUSALS if case.text("layer") == "body"])
def test_a_bad_body_is_refused_by_the_codec(case: Case) -> None:
    raw = case.octets("hex")
    with pytest.raises(ProtocolError) as refused:
        codec.decode(FrameType(raw[0]), raw[codec.PREFIX_BYTES :])
    assert refused.value.code == case.record("error")["value"]


@named([case for case in REFUSALS if case.text("layer") == "hello"])
def test_a_bad_hello_is_refused_by_the_server(case: Case) -> None:
    rig = ServerRig()
    rig.feed(case.octets("hex"))
    [(stream, answer)] = rig.sent()
    assert isinstance(answer, frames.Refused)
    assert (stream, answer.code) == (0, case.record("error")["value"])


@named([case for case in REFUSALS if case.text("layer") in {"prefix", "stream"}])
def test_a_bad_frame_is_refused_by_the_server(case: Case) -> None:
    raw = case.octets("hex")
    rig = welcomed()
    rig.feed(raw)
    [(stream, answer)] = rig.sent()
    assert isinstance(answer, frames.Error)
    assert answer.code == case.record("error")["value"]
    assert stream == (0 if case.text("scope") == ErrorScope.CONNECTION.value else int.from_bytes(raw[2:4], "big"))


@named(HANDSHAKES)
def test_a_proof_is_the_one_in_protocol_md(case: Case) -> None:
    key = hmac.new(case.octets("secret"), b"uplinkd/1 device key", hashlib.sha256).digest()
    covered = b"uplinkd/1 proof" + case.octets("hello") + case.octets("challenge")
    proof = hmac.new(key, covered, hashlib.sha256).digest()
    assert (key, proof) == (case.octets("device_key"), case.octets("proof"))


@named(HANDSHAKES)
def test_a_proof_is_what_both_ends_compute(case: Case) -> None:
    key = device_key(case.octets("secret"))
    assert key == case.octets("device_key")
    proof = prove(key, case.octets("hello"), case.octets("challenge"))
    assert codec.encode(frames.Proof(proof)) == case.octets("proof_frame")


@named(CHECKSUMS)
def test_checksums(case: Case) -> None:
    data = case.octets("data")
    assert (sum8(data), crc32c(data)) == (case.number("sum8"), case.number("crc32c"))


@named([case for case in CHECKSUMS if "first" in case.members])
def test_joined_checksums(case: Case) -> None:
    first, second = case.octets("first"), case.octets("second")
    assert first + second == case.octets("data")
    assert (crc32c(first), crc32c(second)) == (case.number("first_crc32c"), case.number("second_crc32c"))
    assert crc32c(second, crc32c(first)) == case.number("crc32c")
    joined = crc32c_combine(case.number("first_crc32c"), case.number("second_crc32c"), len(second))
    assert joined == case.number("crc32c")


def test_names_are_unique() -> None:
    for cases in (FRAMES, CHUNKS, REFUSALS, HANDSHAKES, CHECKSUMS):
        assert len({case.name for case in cases}) == len(cases)


def test_every_frame_and_every_field_has_a_vector() -> None:
    valid = [case for case in FRAMES + CHUNKS if case.members["valid"]]
    assert {case.octets("hex")[0] for case in valid} == set(FrameType)
    carried = {field for case in FRAMES for field in case.record("fields")}
    assert {tlv.name.lower() for tlv in TlvType} <= carried
    refused = {case.octets("hex")[0] for case in REFUSALS} | {
        case.octets("hex")[0] for case in CHUNKS if not case.members["valid"]
    }
    assert refused >= set(FrameType)


def test_vectors_use_errors_of_the_registry() -> None:
    for case in REFUSALS + [case for case in CHUNKS if not case.members["valid"]]:
        code = ErrorCode[str(case.record("error")["name"])]
        assert (code.value, code.scope.value) == (case.record("error")["value"], case.text("scope"))


@named([case for case in FRAMES if "code" in case.record("fields")])
def test_an_error_has_its_action_and_the_frame_for_its_scope(case: Case) -> None:
    raw = case.octets("hex")
    kind = FrameType(raw[0])
    frame = codec.decode(kind, raw[codec.PREFIX_BYTES :])
    if isinstance(frame, frames.Error | frames.Refused):
        assert frame.wait_ms == 0 or frame.action is Action.WAIT
    code = next((each for each in ErrorCode if each == getattr(frame, "code", None)), None)
    if code is None:
        return
    if isinstance(frame, frames.Error | frames.Refused):
        assert frame.action is code.action
    on_stream = ErrorScope.CHUNK if kind is FrameType.NACK else ErrorScope.STREAM
    assert code.scope is (on_stream if case.number("stream") else ErrorScope.CONNECTION)
