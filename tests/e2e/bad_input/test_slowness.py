"""Devices that send too slowly, or nothing, are cut off when the time in the settings is over."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from protocol import frames
from protocol.constants import Action, FrameType
from protocol.errors import ErrorCode
from tests.e2e.bad_input.conftest import CHUNK_BYTES_MAX, SETTINGS, Nothing
from tests.support.raw_device import Wire, chunk, raw
from tests.support.refused_input import DATA, begun, failed, refused
from tests.support.scene import Scene, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

DRIP_S = 0.2

SHORT_HANDSHAKE = {"LIMITS__HANDSHAKE_TIMEOUT_S": "3"}
"""Only in these tests. On a busy machine this would cut off the devices of tests on other subjects."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("slowness") / "data", SETTINGS | SHORT_HANDSHAKE) as running:
        yield running


async def test_a_handshake_that_is_too_slow_is_cut_off(stranger: Wire, nothing_stored: Nothing) -> None:
    hello = iter(raw(FrameType.HELLO, b"UPLK\1\1\1" + bytes(500)))
    async with nothing_stored:
        reply = await stranger.drip(lambda: bytes([next(hello)]), DRIP_S)
        assert isinstance(reply.frame, frames.Refused)
        assert reply.frame.code == ErrorCode.HANDSHAKE_TIMEOUT
        assert reply.frame.action is Action.REOPEN


async def test_a_connection_that_sends_nothing_is_cut_off(stranger: Wire, nothing_stored: Nothing) -> None:
    async with nothing_stored:
        await refused(stranger, ErrorCode.HANDSHAKE_TIMEOUT)


async def test_a_chunk_that_is_too_slow_is_cut_off(wire: Wire, nothing_stored: Nothing, name: str) -> None:
    await begun(wire, name)
    frame = iter(chunk(1, len(DATA), b"x" * 90))
    async with nothing_stored:
        reply = await wire.drip(lambda: bytes([next(frame)]), DRIP_S)
        assert (reply.stream, type(reply.frame)) == (0, frames.Error)
        assert isinstance(reply.frame, frames.Error)
        assert (reply.frame.code, reply.frame.action) == (ErrorCode.TOO_SLOW, Action.REOPEN)
        await wire.ended()


async def test_a_frame_that_never_ends_is_cut_off(wire: Wire, nothing_stored: Nothing, name: str) -> None:
    await begun(wire, name)
    async with nothing_stored:
        wire.send(raw(FrameType.CHUNK, b"", 1, length=CHUNK_BYTES_MAX))
        await failed(wire, ErrorCode.TOO_SLOW)
