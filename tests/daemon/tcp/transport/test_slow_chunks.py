"""Slow chunks do not keep the receive pool from others; on real sockets. PROTOCOL.md §9."""

import asyncio

from daemon.tcp.receive_pool import CLASS_BYTES, SLACK_BYTES, ReceivePool
from protocol import frames
from protocol.errors import ErrorCode
from tests.support.device_site import Listening, listening, on_uvloop, policy_of
from tests.support.raw_device import Wire, chunk, open_request
from tests.support.waiting import until

MIB = 1024 * 1024
SLOW = 165
"""As many chunks of 1 MiB under way as took the whole pool when each had memory for all of itself."""

FRAME = chunk(1, 0, bytes(MIB))
POLICY = policy_of(connections_max=SLOW + 10)


async def opened(site: Listening, device: str) -> Wire:
    wire = await site.admitted(device)
    await wire.open(1, open_request(f"log-{len(site.wires)}"))
    return wire


async def slow_chunks(site: Listening, count: int, sent_bytes: int, devices: int) -> list[Wire]:
    """Connections of so many devices, each of which has sent part of its chunk."""
    wires = []
    for number in range(count):
        wire = await opened(site, f"slow-{number % devices}")
        wire.send(FRAME[:sent_bytes])
        wires.append(wire)
    return wires


async def heard_to(wire: Wire, size_bytes: int) -> None:
    while (await wire.hear(frames.Ack, 1)).next_expected_byte < size_bytes:
        pass


@on_uvloop
class TestSlowChunks:
    async def test_a_chunk_that_has_just_begun_holds_little_memory(self) -> None:
        async with listening(POLICY) as site:
            site.site.bench.disk.free_bytes = 2**40
            await slow_chunks(site, SLOW, 10_000, devices=SLOW)
            small = CLASS_BYTES[0] + SLACK_BYTES
            await until(lambda: site.pool.lent_bytes == SLOW * small)
            quick = await opened(site, "quick")
            await quick.upload(1, 0, bytes(MIB))

    async def test_one_device_leaves_memory_for_others_whatever_it_does(self) -> None:
        async with listening(POLICY) as site:
            site.site.bench.disk.free_bytes = 2**40
            await slow_chunks(site, SLOW, MIB // 2, devices=1)
            await until(lambda: site.pool.waits)
            quick = await opened(site, "quick")
            await quick.upload(1, 0, bytes(MIB))
            assert site.pool.reclaims == 0, "it did not even have to wait"

    async def test_where_the_slow_hold_everything_a_quick_chunk_gets_the_memory_of_the_slowest(self) -> None:
        pool = ReceivePool(8 * MIB, MIB)
        async with listening(POLICY, pool=pool) as site:
            site.site.bench.disk.free_bytes = 2**40
            slow = await slow_chunks(site, 24, 3 * MIB // 4, devices=24)
            await until(lambda: len(pool._waiting) > 10)
            quick = await opened(site, "quick")
            quick.send(FRAME)
            heard = asyncio.create_task(heard_to(quick, MIB))
            seconds = 0
            # Time passes for all alike, but only while it waits.
            while not heard.done():
                await until(lambda: heard.done() or ("default", "quick") in pool._waiting)
                await site.pass_s(0 if heard.done() else 1)
                seconds += 1
            await heard
            assert pool.reclaims > 0
            assert seconds < 30
            # Each of them gets through in the end: what was dropped is sent again in small chunks.
            for wire in slow:
                wire.send(FRAME[3 * MIB // 4 :])
            for wire in slow:
                await self.finished(wire)

    async def finished(self, wire: Wire) -> None:
        """Wait until the chunk is durable. If it is dropped, send its range in chunks that are never dropped."""
        while True:
            reply = (await wire.reply()).frame
            if isinstance(reply, frames.Ack) and reply.next_expected_byte >= MIB:
                return
            if isinstance(reply, frames.Nack):
                assert reply.code == ErrorCode.CHUNK_DROPPED
                assert (reply.start_byte, reply.end_byte) == (0, MIB - 1)
                for start in range(0, MIB, 4096):
                    wire.send(chunk(1, start, bytes(4096)))

    async def test_a_device_that_waits_for_memory_hears_pings(self) -> None:
        pool = ReceivePool(MIB, MIB)
        async with listening(POLICY, pool=pool) as site:
            holder, starving = await opened(site, "holder"), await opened(site, "starving")
            holder.send(FRAME[: MIB // 2])
            await until(lambda: pool.lent_bytes)
            starving.send(FRAME)
            await until(lambda: pool.waits)
            lease = next(iter(pool._lent))
            lease.retain()
            for _ in range(40):
                await site.pass_s(1)
            assert isinstance((await starving.next()).frame, frames.Ping)
            lease.release()
