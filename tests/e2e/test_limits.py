"""Limits of a real daemon, per device and in all. A device beyond a limit gets an error, and others continue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from protocol import codec, frames
from protocol.constants import CHUNK_OVERHEAD_BYTES, Action, UploadState
from protocol.errors import ErrorCode
from tests.support.raw_device import Wire, chunk, open_request, token_hello
from tests.support.scene import Scene, scene
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTIONS_MAX = 8
PER_IP_MAX = 4
STREAMS_MAX = 3
SIZE_MAX_BYTES = 2_000_000
CHUNK_BYTES_MAX = 1024 * 1024
WINDOW_BYTES = CHUNK_BYTES_MAX + CHUNK_OVERHEAD_BYTES

FIRST, SECOND, THIRD = [(f"127.0.0.{number}", 0) for number in (11, 12, 13)]
"""Local addresses of the devices."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    settings = {
        "LIMITS__CONNECTIONS_MAX": str(CONNECTIONS_MAX),
        "LIMITS__CONNECTIONS_PER_IP_MAX": str(PER_IP_MAX),
        "LIMITS__STREAMS_MAX": str(STREAMS_MAX),
        "LIMITS__IDLE_TIMEOUT_S": "6",
        "LIMITS__KEEPALIVE_S": "1",
        "LIMITS__CHUNK_BYTES_MAX": str(CHUNK_BYTES_MAX),
        "LIMITS__WINDOW_BYTES": str(WINDOW_BYTES),
        "LIMITS__OUTGOING_BYTES_MAX": "16384",
        "STORAGE__SIZE_MAX_BYTES": str(SIZE_MAX_BYTES),
    }
    async with scene(tmp_path_factory.mktemp("limits") / "data", settings) as running:
        yield running


async def admit(live: Scene, stack: AsyncExitStack, local: tuple[str, int], count: int) -> None:
    """Connect `count` devices from one address."""
    for _ in range(count):
        wire = await stack.enter_async_context(await Wire.connect(live.address, local=local))
        wire.say(token_hello(live.token("crowd")))
        await wire.hear(frames.Welcome)


async def refusal(live: Scene, local: tuple[str, int]) -> frames.Refused:
    """Connect one more device and return its refusal, which comes once it has proven itself."""
    async with await Wire.connect(live.address, local=local) as wire:
        wire.say(token_hello(live.token("crowd")))
        answer = await wire.hear(frames.Refused)
        assert (answer.code, answer.action) == (ErrorCode.TOO_MANY_CONNECTIONS, Action.WAIT)
        assert answer.wait_ms > 0
        await wire.ended()
        return answer


async def test_connections_per_address_are_limited(live: Scene) -> None:
    async with AsyncExitStack() as stack:
        await admit(live, stack, FIRST, PER_IP_MAX)
        await refusal(live, FIRST)
        await admit(live, stack, SECOND, 1)


async def test_connections_in_all_are_limited(live: Scene) -> None:
    async with AsyncExitStack() as stack:
        await admit(live, stack, FIRST, PER_IP_MAX)
        await admit(live, stack, SECOND, CONNECTIONS_MAX - PER_IP_MAX)
        await refusal(live, THIRD)
        assert (await live.http.get("/readyz", token=None)).status == 200


async def test_a_closed_connection_makes_room_for_another(live: Scene) -> None:
    for _ in range(2 * CONNECTIONS_MAX):
        async with await live.admitted("cam") as wire:
            wire.end()
            await wire.ended()


async def test_open_uploads_per_connection_are_limited(live: Scene) -> None:
    async with await live.admitted("cam") as wire:
        for stream in range(1, STREAMS_MAX + 1):
            await wire.open(stream, open_request(f"stream-{stream}.bin", 10))
        wire.say(open_request("one-more.bin"), 10)
        answer = await wire.hear(frames.Error, 10)
        assert (answer.code, answer.action) == (ErrorCode.TOO_MANY_STREAMS, Action.WAIT)
        wire.say(frames.Abort(), 1)
        await wire.hear(frames.Aborted, 1)
        await wire.open(11, open_request("one-more.bin"))


async def test_a_declared_size_is_limited(live: Scene) -> None:
    async with await live.admitted("cam") as wire:
        wire.say(open_request("large.bin", SIZE_MAX_BYTES + 1), 1)
        assert (await wire.hear(frames.Error, 1)).code == ErrorCode.FILE_TOO_LARGE
        await wire.open(2, open_request("large.bin", SIZE_MAX_BYTES))


async def test_an_undeclared_size_is_limited_as_bytes_arrive(live: Scene) -> None:
    async with await live.admitted("cam") as wire:
        await wire.open(1, open_request("endless.bin"))
        wire.send(chunk(1, SIZE_MAX_BYTES - 9, bytes(10)))
        assert (await wire.hear(frames.Error, 1)).code == ErrorCode.FILE_TOO_LARGE


async def test_a_device_that_answers_no_ping_is_closed_and_one_that_does_stays(live: Scene) -> None:
    async with await live.admitted("awake") as awake, await live.admitted("asleep") as asleep:
        # This device answers every PING and receives nothing else until its query.
        answering = asyncio.create_task(awake.hear(frames.Status, 1))
        pings = 0
        while isinstance((reply := await asleep.next()).frame, frames.Ping):
            pings += 1
        assert pings >= 2
        assert isinstance(reply.frame, frames.Error)
        assert (reply.frame.code, reply.frame.action) == (ErrorCode.IDLE_TIMEOUT, Action.REOPEN)
        await asleep.ended()
        awake.say(frames.Query("x"), 1)
        await answering


async def test_the_daemon_stops_reading_from_a_device_that_does_not_read(live: Scene) -> None:
    async with await live.admitted("stuck") as stuck:
        pings = 4096 * codec.encode(frames.Ping(7))
        # PONGs pile up, so the daemon stops reading, and then PINGs pile up here, until all buffers are full.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await stuck.flood(pings)
        assert stuck.flooded_bytes < 64 * 1024 * 1024
        async with await live.admitted("cam") as other:
            await other.open(1, open_request("beside.bin", 10))
            await other.upload(1, 0, bytes(10))


async def test_a_pause_of_the_whole_process_counts_against_no_device(live: Scene) -> None:
    async with await live.admitted("patient") as wire:
        await live.daemon.freeze()
        wire.say(frames.Query("x"), 1)
        # The pause itself, longer than the idle timeout.
        await asyncio.sleep(7)
        live.daemon.thaw()
        assert (await wire.hear(frames.Status, 1)).state is UploadState.NONE
        wire.say(frames.Query("y"), 2)
        await wire.hear(frames.Status, 2)


async def test_a_reader_of_the_log_that_stalls_stops_nobody(tmp_path: Path) -> None:
    async with scene(tmp_path / "data") as live:
        async with live.daemon.unread_log():
            for _ in range(2000):
                await live.http.get("/nowhere")
            async with await live.admitted("cam") as wire:
                await wire.open(1, open_request("beside.bin", 10))
                await wire.upload(1, 0, bytes(10))
        await until(lambda: any("log lines dropped" in line or "/nowhere" in line for line in live.daemon.log))
        assert await live.daemon.stop() == 0
