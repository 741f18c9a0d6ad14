"""The proxy that breaks links in end-to-end tests: exact counts, both directions, both kinds, reproducible by seed."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.support.cutting_proxy import Cut, CuttingProxy, Direction, Kind, Span
from tests.support.deadlines import DEADLINE_S

NEVER = Span(2**40, 2**40)


class Recorder:
    """Echoes its input, and records it as one list entry for each connection."""

    def __init__(self) -> None:
        self.received: list[bytearray] = []
        self.ends: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = bytearray()
        self.received.append(mine)
        try:
            while data := await reader.read(65536):
                mine += data
                writer.write(data)
                await writer.drain()
            self.ends.put_nowait("end")
        except ConnectionError:
            self.ends.put_nowait("reset")
        finally:
            writer.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def upstream(recorder: Recorder) -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield host, port
    server.close()


def seeded(kind: Kind) -> random.Random:
    """A generator with which the first connection ends in this way."""
    for seed in range(100):
        rng = random.Random(seed)
        rng.randint(1000, 1000), rng.randint(1000, 1000)
        if rng.choice(tuple(Kind)) is kind:
            return random.Random(seed)
    raise AssertionError("no seed below 100 gives this end")


async def exchange(address: tuple[str, int], data: bytes) -> tuple[bytes, str]:
    """Send `data`, then read to the end. Returns what came back, and how the connection ended."""
    reader, writer = await asyncio.open_connection(*address)
    came = bytearray()
    try:
        writer.write(data)
        writer.write_eof()
        while piece := await reader.read(65536):
            came += piece
    except ConnectionError:
        return bytes(came), "reset"
    finally:
        writer.close()
    return bytes(came), "end"


async def test_without_a_cut_both_ends_get_all_bytes_and_the_end(upstream: tuple[str, int], recorder: Recorder) -> None:
    data = random.Random(1).randbytes(300_000)
    async with CuttingProxy(upstream, random.Random(1), up=NEVER, down=NEVER) as proxy:
        assert await exchange(proxy.address, data) == (data, "end")
        assert proxy.cuts == ()
        assert proxy.forwarded_bytes(Direction.UP) == proxy.forwarded_bytes(Direction.DOWN) == len(data)
    assert recorder.received == [data]


async def test_a_close_comes_after_exactly_the_bytes_drawn(upstream: tuple[str, int], recorder: Recorder) -> None:
    async with CuttingProxy(upstream, seeded(Kind.CLOSE), up=Span(1000, 1000), down=NEVER) as proxy:
        await exchange(proxy.address, bytes(5000))
        async with asyncio.timeout(DEADLINE_S):
            await recorder.ends.get()
        assert proxy.cuts == (Cut(Direction.UP, 1000, Kind.CLOSE),)
    assert [len(received) for received in recorder.received] == [1000]


async def test_after_a_close_downwards_the_device_reads_what_was_forwarded(upstream: tuple[str, int]) -> None:
    async with CuttingProxy(upstream, seeded(Kind.CLOSE), up=NEVER, down=Span(1000, 1000)) as proxy:
        # Send no more than the cut: unread input would turn the close into a reset.
        assert await exchange(proxy.address, bytes(1000)) == (bytes(1000), "end")
        assert proxy.cuts == (Cut(Direction.DOWN, 1000, Kind.CLOSE),)


@pytest.mark.parametrize("direction", Direction)
async def test_a_reset_reaches_both_ends(direction: Direction, upstream: tuple[str, int], recorder: Recorder) -> None:
    spans = dict.fromkeys(Direction, NEVER) | {direction: Span(1000, 1000)}
    up, down = spans[Direction.UP], spans[Direction.DOWN]
    async with CuttingProxy(upstream, seeded(Kind.RESET), up=up, down=down) as proxy:
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(bytes(1000))
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ConnectionResetError):
                while await reader.read(65536):
                    pass
            assert await recorder.ends.get() == "reset"
        writer.close()
        assert proxy.cuts == (Cut(direction, 1000, Kind.RESET),)


async def test_after_the_last_cut_the_link_works(upstream: tuple[str, int]) -> None:
    data = bytes(200_000)
    span = Span(1, 50_000)
    async with CuttingProxy(upstream, random.Random(3), up=span, down=span, cuts_max=3) as proxy:
        for _ in range(3):
            assert await exchange(proxy.address, data) != (data, "end")
        assert await exchange(proxy.address, data) == (data, "end")
        assert len(proxy.cuts) == 3


async def test_one_seed_gives_the_same_cuts_again(upstream: tuple[str, int]) -> None:
    async def cuts(seed: int) -> tuple[Cut, ...]:
        span = Span(1, 50_000)
        async with CuttingProxy(upstream, random.Random(seed), up=span, down=span, cuts_max=4) as proxy:
            while len(proxy.cuts) < 4:
                await exchange(proxy.address, bytes(200_000))
            return proxy.cuts

    assert await cuts(7) == await cuts(7)
    assert await cuts(7) != await cuts(8)


async def test_a_server_that_is_down_resets_the_device(upstream: tuple[str, int]) -> None:
    unused = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    host, port = unused.sockets[0].getsockname()
    unused.close()
    async with CuttingProxy((host, port), random.Random(1), up=NEVER, down=NEVER) as proxy:
        came, _ = await exchange(proxy.address, b"hello")
        assert (came, proxy.cuts) == (b"", ())


async def test_leaving_the_proxy_ends_open_connections(upstream: tuple[str, int]) -> None:
    async with CuttingProxy(upstream, random.Random(1), up=NEVER, down=NEVER) as proxy:
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ConnectionResetError):
            await reader.read()
    writer.close()
    with pytest.raises(RuntimeError):
        _ = proxy.address
