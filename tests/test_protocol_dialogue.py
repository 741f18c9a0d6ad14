"""PROTOCOL.md's "One upload, start to end" is what both ends say."""

import re
from typing import NamedTuple

import pytest

from protocol import codec, frames
from protocol.checksum import crc32c, sum8
from protocol.client import ClientConnection
from protocol.constants import CHUNK_OVERHEAD_BYTES, FrameType, UploadState
from protocol.events import ServerMisbehaved
from tests.support.protocol_document import section
from tests.support.server_rig import ServerRig


class Said(NamedTuple):
    """One frame of the dialogue."""

    by_device: bool
    kind: FrameType
    raw: bytes

    @property
    def stream(self) -> int:
        return int.from_bytes(self.raw[2:4], "big")

    @property
    def frame(self) -> frames.ControlFrame:
        return codec.decode(self.kind, self.raw[codec.PREFIX_BYTES :])


def dialogue() -> list[list[Said]]:
    """The frames of each connection of "One upload, start to end", in order."""
    text = "\n".join(re.findall(r"```text\n(.*?)```", section("2 One upload, start to end"), re.DOTALL))
    without_notes = re.sub(r"^ +#.*\n", "", text, flags=re.MULTILINE)
    connections: list[list[Said]] = []
    for speaker, name, digits in re.findall(
        r"^(device|server) (\w+) +((?:[0-9a-f ]+\n)+)", without_notes, re.MULTILINE
    ):
        if name == "HELLO":
            connections.append([])
        connections[-1].append(Said(speaker == "device", FrameType[name], bytes.fromhex(digits)))
    return connections


def test_the_dialogue_is_an_upload_over_a_link_that_breaks() -> None:
    first, second = dialogue()
    sent = bytearray(20)
    for said in first + second:
        assert said.raw[0] == said.kind
        if said.kind is FrameType.CHUNK:
            start, end, checksum = codec.CHUNK_HEADERS[said.kind].unpack_from(said.raw, codec.PREFIX_BYTES)
            sent[start : end + 1] = said.raw[codec.CHUNK_FRAMES[said.kind].size :]
            assert checksum == sum8(sent[start : end + 1])
    assert [said.kind for said in first][-3:] == [FrameType.CHUNK, FrameType.CHUNK, FrameType.ACK]
    [opened] = [said.frame for said in second if said.kind is FrameType.OPENED]
    assert opened == frames.Opened(0x0123456789ABCDEF, UploadState.RECEIVING, UploadState.NONE, 8, 604800)
    assert second[-1].frame == frames.Finished(0x0123456789ABCDEF, len(sent), crc32c(sent))


@pytest.mark.parametrize("connection", dialogue(), ids=["until the link breaks", "to the end"])
def test_both_ends_say_what_the_dialogue_says(connection: list[Said]) -> None:
    hello = connection[0].frame
    assert isinstance(hello, frames.Hello)
    device, server = ClientConnection(hello), ServerRig()
    for said in connection:
        if said.by_device:
            speak(device, said)
            assert b"".join(device.data_to_send()) == said.raw
            server.feed(said.raw)
        else:
            answer(server, said)
            assert server.connection.data_to_send(server.now) == said.raw
            assert not any(isinstance(event, ServerMisbehaved) for event in device.receive(said.raw))


def speak(device: ClientConnection, said: Said) -> None:
    """Have the device's end send what the dialogue has it say."""
    if said.kind is FrameType.CHUNK:
        start, _, _ = codec.CHUNK_HEADERS[said.kind].unpack_from(said.raw, codec.PREFIX_BYTES)
        device.chunk(said.stream, start, said.raw[codec.CHUNK_FRAMES[said.kind].size :])
        return
    match said.frame:
        case frames.Open() as request:
            assert device.open(request) == said.stream
        case frames.Finish() as finish:
            device.finish(said.stream, finish)
        case frame:
            assert isinstance(frame, frames.Hello), "the dialogue needs no other frame of the device"


def answer(server: ServerRig, said: Said) -> None:
    """Have the server's end decide as the dialogue has it answer."""
    match said.frame:
        case frames.Welcome() as welcome:
            server.connection.welcome(welcome)
            server.resume()
        case frames.Opened() as opened:
            server.connection.opened(said.stream, opened, 20)
            server.resume()
        case frames.Ack(next_expected_byte):
            server.connection.acknowledge(said.stream, next_expected_byte, [], 8 + CHUNK_OVERHEAD_BYTES)
        case frame:
            assert isinstance(frame, frames.Finished), "the dialogue needs no other answer"
            server.connection.finished(said.stream, frame)
