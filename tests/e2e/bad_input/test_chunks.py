"""Chunks with false lengths or offsets, corrupt chunks, and chunks of unknown streams."""

import pytest

from protocol import frames
from protocol.constants import NACKS_PER_RANGE_MAX, OFFSET_MAX, SIZE_UNKNOWN, FrameType
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.e2e.bad_input.conftest import RANGES_MAX, Nothing
from tests.support.raw_device import Wire, chunk, lying_chunk, open_request, raw
from tests.support.refused_input import DATA, begun, failed, lives_on

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNKS = [FrameType.CHUNK, FrameType.CHUNK_COMPACT, FrameType.CHUNK_CRC32C]


async def begun_with_gaps(wire: Wire, name: str) -> None:
    """Start an upload of 1000 bytes with as many gaps as the daemon allows, all below byte 900."""
    await begun(wire, name, size=1000)
    for number in range(1, RANGES_MAX + 1):
        wire.send(chunk(1, 100 * number, DATA))
        ack = await wire.hear(frames.Ack, 1)
        assert ack.ranges is not None
        assert ack.ranges[-1] == Span(100 * number, 100 * number + 10)


class TestChunks:
    @pytest.mark.parametrize("kind", CHUNKS)
    @pytest.mark.parametrize(
        ("start", "end"), [(10, 20), (10, 18), (10, 10), (19, 10), (10, 2**32 - 1), (2**32 - 1, 0)]
    )
    async def test_a_length_that_contradicts_start_and_end(
        self, wire: Wire, nothing_stored: Nothing, name: str, kind: FrameType, start: int, end: int
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(lying_chunk(1, start, end, DATA, kind))
            answer = await failed(wire, ErrorCode.CHUNK_INVALID, 1)
            assert answer.next_expected_byte == len(DATA)
            await lives_on(wire)

    @pytest.mark.parametrize("kind", CHUNKS)
    async def test_a_chunk_without_data(self, wire: Wire, nothing_stored: Nothing, name: str, kind: FrameType) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(lying_chunk(1, 11, 10, b"", kind))
            await failed(wire, ErrorCode.CHUNK_INVALID, 1)

    async def test_a_header_cut_short(self, wire: Wire, nothing_stored: Nothing, name: str) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(raw(FrameType.CHUNK, bytes(16), 1))
            await failed(wire, ErrorCode.CHUNK_INVALID, 1)

    @pytest.mark.parametrize("start", [91, 100, 2**40])
    async def test_an_end_beyond_the_size(self, wire: Wire, nothing_stored: Nothing, name: str, start: int) -> None:
        await begun(wire, name, size=100)
        async with nothing_stored:
            wire.send(chunk(1, start, DATA))
            answer = await failed(wire, ErrorCode.CHUNK_BEYOND_END, 1)
            assert answer.next_expected_byte == len(DATA)
            await lives_on(wire)

    @pytest.mark.parametrize("end", [OFFSET_MAX, OFFSET_MAX + 1, 2**64 - 1])
    async def test_an_end_beyond_offset_max(self, wire: Wire, nothing_stored: Nothing, name: str, end: int) -> None:
        await begun(wire, name, size=SIZE_UNKNOWN)
        async with nothing_stored:
            wire.send(lying_chunk(1, end - 9, end, DATA))
            await failed(wire, ErrorCode.CHUNK_INVALID, 1)

    @pytest.mark.parametrize("kind", CHUNKS)
    async def test_a_wrong_checksum_costs_only_the_chunk(
        self, wire: Wire, nothing_stored: Nothing, name: str, kind: FrameType
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(chunk(1, 10, DATA, kind)[:-1] + b"!")
            answer = await wire.hear(frames.Nack, 1)
            assert (answer.code, answer.start_byte, answer.end_byte) == (ErrorCode.CHUNK_CORRUPT, 10, 19)
            assert answer.next_expected_byte == 10
        await wire.upload(1, 10, DATA)

    async def test_the_eighth_nack_of_a_range_ends_the_stream(
        self, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun(wire, name)
        async with nothing_stored:
            wire.send(NACKS_PER_RANGE_MAX * (chunk(1, 10, DATA)[:-1] + b"!"))
            for _ in range(NACKS_PER_RANGE_MAX - 1):
                await wire.hear(frames.Nack, 1)
            await failed(wire, ErrorCode.NACKS_EXHAUSTED, 1)
            await lives_on(wire)

    async def test_one_gap_too_many_costs_only_the_chunk(self, wire: Wire, nothing_stored: Nothing, name: str) -> None:
        await begun_with_gaps(wire, name)
        async with nothing_stored:
            wire.send(chunk(1, 900, DATA))
            answer = await wire.hear(frames.Nack, 1)
            assert (answer.code, answer.start_byte, answer.end_byte) == (ErrorCode.TOO_MANY_GAPS, 900, 909)
            assert answer.next_expected_byte == 10
        await wire.upload(1, 10, b"x" * 90)

    async def test_the_eighth_chunk_that_makes_one_gap_too_many_ends_the_stream(
        self, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        await begun_with_gaps(wire, name)
        async with nothing_stored:
            for _ in range(NACKS_PER_RANGE_MAX - 1):
                wire.send(chunk(1, 900, DATA))
                assert (await wire.hear(frames.Nack, 1)).code == ErrorCode.TOO_MANY_GAPS
            wire.send(chunk(1, 900, DATA))
            await failed(wire, ErrorCode.NACKS_EXHAUSTED, 1)
            await lives_on(wire)


class TestStreams:
    async def test_a_chunk_for_a_stream_that_was_not_opened(self, wire: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            wire.send(chunk(7, 0, DATA))
            await failed(wire, ErrorCode.STREAM_UNKNOWN, 7)
            await lives_on(wire)

    @pytest.mark.parametrize("number", [1, 2])
    async def test_a_stream_number_used_twice(
        self, wire: Wire, nothing_stored: Nothing, name: str, number: int
    ) -> None:
        await wire.open(2, open_request(name))
        async with nothing_stored:
            wire.say(open_request(f"{name}-again"), number)
            await failed(wire, ErrorCode.STREAM_REUSED)
