"""A socket holds little, and reports when it should get more."""

import asyncio
import socket
from collections.abc import AsyncIterator
from unittest.mock import Mock

import pytest

from device.backpressure import Backpressure
from tests.support.waiting import until

UNSENT_BYTES = 16 * 1024


@pytest.fixture
async def ends() -> AsyncIterator[tuple[asyncio.StreamWriter, socket.socket]]:
    """A connection: the one end asyncio's, the other with small buffers and never read, unless by the test."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        _, writer = await asyncio.open_connection(*listener.getsockname())
        other, _ = listener.accept()
    with other:
        other.setblocking(False)
        yield writer, other
        writer.transport.abort()
        await asyncio.sleep(0)


async def filled(backpressure: Backpressure, writer: asyncio.StreamWriter) -> int:
    """How much is written before there is no more room."""
    written = 0
    while True:
        waiting = asyncio.ensure_future(backpressure.writable(UNSENT_BYTES))
        # asyncio reports a writable socket in its next turns.
        for _ in range(5):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait([waiting])
            return written
        writer.write(bytes(1024))
        written += 1024


async def test_a_stalled_link_gets_little(ends: tuple[asyncio.StreamWriter, socket.socket]) -> None:
    writer, other = ends
    backpressure = Backpressure(writer)
    written = await filled(backpressure, writer)
    received = await drained(other)
    backpressure.close()
    # Far below what a socket takes on its own: half a megabyte and more.
    assert 0 < written <= 8 * UNSENT_BYTES
    assert received <= written


async def drained(other: socket.socket) -> int:
    """What the other end has received until nothing more comes."""
    received = 0
    for _ in range(50):
        try:
            received += len(other.recv(65536))
        except BlockingIOError:
            await asyncio.sleep(0)
    return received


async def test_there_is_room_again_when_the_other_end_reads(ends: tuple[asyncio.StreamWriter, socket.socket]) -> None:
    writer, other = ends
    backpressure = Backpressure(writer)
    await filled(backpressure, writer)
    waiting = asyncio.ensure_future(backpressure.writable(UNSENT_BYTES))

    async def read() -> None:
        while not waiting.done():
            await drained(other)

    reading = asyncio.create_task(read())
    await until(waiting.done)
    await reading
    backpressure.close()


async def test_closing_ends_the_wait(ends: tuple[asyncio.StreamWriter, socket.socket]) -> None:
    writer, _ = ends
    backpressure = Backpressure(writer)
    await filled(backpressure, writer)
    waiting = asyncio.ensure_future(backpressure.writable(UNSENT_BYTES))
    backpressure.close()
    await until(waiting.done)
    backpressure.close()


async def test_a_broken_connection_is_reported(ends: tuple[asyncio.StreamWriter, socket.socket]) -> None:
    writer, other = ends
    backpressure = Backpressure(writer)
    await filled(backpressure, writer)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    other.close()
    with pytest.raises(ConnectionError):
        while True:
            await backpressure.writable(UNSENT_BYTES)
            writer.write(b"x")
    backpressure.close()


async def test_a_connection_without_a_socket_has_room_when_it_is_drained() -> None:
    writer = Mock(spec=asyncio.StreamWriter)
    writer.get_extra_info.return_value = None
    backpressure = Backpressure(writer)
    await backpressure.writable(UNSENT_BYTES)
    writer.drain.assert_awaited_once()
    backpressure.close()
