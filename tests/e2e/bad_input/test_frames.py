"""Input that is not a valid frame: another protocol, and frames that are too long, cut short or malformed."""

import asyncio

import pytest

from protocol.constants import CONTROL_FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX, VERSION, FrameType, TlvType
from protocol.errors import ErrorCode
from tests.e2e.bad_input.conftest import CHUNK_BYTES_MAX, Nothing
from tests.support.deadlines import DEADLINE_S
from tests.support.raw_device import Wire, changed, chunk, field, open_request, raw, token_hello
from tests.support.refused_input import DATA, begun, failed, refused
from tests.support.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestTheFirstBytes:
    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"SSH-2.0-x\r\n",
            b"\0",
        ],
        ids=["http", "tls", "ssh", "zero"],
    )
    async def test_another_protocol_is_refused(self, stranger: Wire, nothing_stored: Nothing, data: bytes) -> None:
        async with nothing_stored:
            stranger.send(data)
            await refused(stranger, ErrorCode.MAGIC_WRONG)

    async def test_a_wrong_magic(self, live: Scene, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.say(changed(token_hello(live.token("victim")), magic=b"UPLX"))
            await refused(stranger, ErrorCode.MAGIC_WRONG)

    @pytest.mark.parametrize(("lowest", "highest"), [(VERSION + 1, 255), (0, VERSION - 1), (255, 0)])
    async def test_a_version_out_of_range(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, lowest: int, highest: int
    ) -> None:
        async with nothing_stored:
            stranger.say(changed(token_hello(live.token("victim")), version_min=lowest, version_max=highest))
            answer = await refused(stranger, ErrorCode.VERSION_UNSUPPORTED)
        assert (answer.version_min, answer.version_max) == (VERSION, VERSION)

    async def test_a_frame_before_hello(self, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.say(open_request("early.bin"), 1)
            await refused(stranger, ErrorCode.MAGIC_WRONG)

    async def test_an_unknown_kind_of_credential(self, live: Scene, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.say(changed(token_hello(live.token("victim")), credential=3))
            await refused(stranger, ErrorCode.CREDENTIAL_UNSUPPORTED)


class TestFrameSizes:
    async def test_an_oversized_hello_is_refused_once_its_prefix_arrives(
        self, stranger: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            stranger.send(raw(FrameType.HELLO, b"", length=HANDSHAKE_FRAME_BYTES_MAX - 7))
            await refused(stranger, ErrorCode.FRAME_TOO_LARGE)

    async def test_an_oversized_control_frame_is_refused_once_its_prefix_arrives(
        self, wire: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            wire.send(raw(FrameType.OPEN, b"", 1, length=CONTROL_FRAME_BYTES_MAX - 7))
            await failed(wire, ErrorCode.FRAME_TOO_LARGE)

    @pytest.mark.parametrize("length", [CHUNK_BYTES_MAX + 21, 2**32 - 1])
    async def test_an_oversized_chunk_is_refused_once_its_prefix_arrives(
        self, wire: Wire, nothing_stored: Nothing, name: str, length: int
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(raw(FrameType.CHUNK, b"", 1, length=length))
            await failed(wire, ErrorCode.FRAME_TOO_LARGE)

    @pytest.mark.parametrize(
        "frame",
        [
            raw(FrameType.OPEN, b"\0\0\0", 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, b"cut", length=9), 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + b"\x10\0", 1),
            raw(FrameType.OPEN, b"\0" + bytes(8), 1),
            raw(FrameType.OPEN, b"\x07" + bytes(8) + field(TlvType.NAME, b"x"), 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + 2 * field(TlvType.NAME, b"x"), 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, b"x") + field(0x7E, b""), 1),
            raw(FrameType.OPEN, b"\0" + bytes(8) + field(TlvType.NAME, b"x"), 0),
            raw(FrameType.PING, b"\0\0\0\0", 5),
            raw(FrameType.PING, b"\0\0\0\0", flags=1),
            raw(FrameType.REFRESH, b""),
        ],
        ids=[
            "fixed part cut",
            "field cut",
            "field header cut",
            "name missing",
            "disposition unknown",
            "field twice",
            "field unknown",
            "stream 0",
            "stream not 0",
            "flags",
            "token missing",
        ],
    )
    async def test_a_malformed_frame_ends_the_connection(
        self, wire: Wire, nothing_stored: Nothing, frame: bytes
    ) -> None:
        async with nothing_stored:
            wire.send(frame)
            await failed(wire, ErrorCode.FRAME_MALFORMED)

    @pytest.mark.parametrize(("kind", "code"), [(0x7F, ErrorCode.FRAME_UNKNOWN), (0x01, ErrorCode.FRAME_UNEXPECTED)])
    async def test_an_unknown_or_unexpected_frame_ends_the_connection(
        self, wire: Wire, nothing_stored: Nothing, kind: int, code: ErrorCode
    ) -> None:
        async with nothing_stored:
            wire.send(raw(kind, b""))
            await failed(wire, code)

    async def test_a_hello_cut_short_by_end_of_input(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            stranger.send(raw(FrameType.HELLO, b"UPLK", length=100))
            stranger.end()
            await stranger.ended()

    async def test_a_chunk_cut_short_by_end_of_input_is_not_stored(
        self, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(chunk(1, len(DATA), b"x" * 50)[:-1])
            wire.end()
            await wire.ended()

    async def test_a_chunk_cut_short_by_a_reset_is_not_stored(
        self, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(chunk(1, len(DATA), b"x" * 50)[:-1])
            wire.hang_up()

    async def test_endless_input_after_a_fatal_error_is_cut_off(self, wire: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            wire.send(raw(0x7F, b""))
            await failed(wire, ErrorCode.FRAME_UNKNOWN)
            with pytest.raises(ConnectionError):  # not TimeoutError
                async with asyncio.timeout(DEADLINE_S):
                    await wire.flood(bytes(64 * 1024))
