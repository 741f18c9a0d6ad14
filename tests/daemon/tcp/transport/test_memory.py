"""Memory that connections borrow, data that awaits the disk, and when they are not read; on real sockets."""

import asyncio
from typing import cast

import pytest

from daemon.tcp.flow import CROWDED_BYTES
from daemon.tcp.host import Host
from daemon.tcp.receive_pool import PooledLease, ReceivePool
from daemon.tcp.session import Session
from daemon.tcp.transport import DeviceConnection
from daemon.tcp.turns import Turns
from daemon.telemetry.metrics import CloseReason
from protocol import frames
from protocol.errors import ErrorCode
from protocol.events import ServerEvent
from protocol.frame_buffer import CARRY_BYTES_MAX
from protocol.server import ServerConnection
from protocol.state import ConnectionState
from protocol.streams import Streams
from tests.support.device_site import SETTINGS, listening, on_uvloop
from tests.support.fake_machine import FakeClock
from tests.support.raw_device import chunk, open_request
from tests.support.waiting import until

LARGE = 700 * 1024
"""A frame that needs a lease of its own."""


@on_uvloop
class TestMemory:
    async def test_connections_get_memory_first_come_first_served(self) -> None:
        # Memory for one large frame at a time.
        pool = ReceivePool(LARGE, LARGE)
        async with listening(pool=pool) as site:
            site.site.bench.disk.free_bytes = 2**40
            wires = []
            for index in range(3):
                wire = await site.admitted(f"pump-{index}")
                await wire.open(1, open_request("log"))
                wires.append(wire)
            frame = chunk(1, 0, bytes(LARGE))
            wires[0].send(frame[: LARGE // 2])
            await until(lambda: pool.lent_bytes)
            wires[1].send(frame)
            await until(lambda: pool.waits == 1)
            wires[2].send(frame)
            await until(lambda: pool.waits == 2)
            # The holder goes away in the middle of its frame, and nobody is stuck.
            wires[0].hang_up()
            for wire in wires[1:]:
                while (await wire.hear(frames.Ack, 1)).next_expected_byte < LARGE:
                    pass

    async def test_a_connection_that_waits_for_memory_and_ends_is_passed_over(self) -> None:
        pool = ReceivePool(LARGE, LARGE)
        async with listening(pool=pool) as site:
            site.site.bench.disk.free_bytes = 2**40
            wires = [await site.admitted(f"pump-{index}") for index in range(2)]
            frame = chunk(1, 0, bytes(LARGE))
            for wire in wires:
                await wire.open(1, open_request("log"))
            wires[0].send(frame[: LARGE // 2])
            await until(lambda: pool.lent_bytes)
            wires[1].send(frame)
            await until(lambda: pool.waits == 1)
            await site.pass_s(0)
            site.server.cut("default", "pump-1")
            wires[1].hang_up()
            wires[0].send(frame[LARGE // 2 :])
            while (await wires[0].hear(frames.Ack, 1)).next_expected_byte < LARGE:
                pass

    async def test_where_nothing_is_left_to_lend_little_is_read_of_each(self) -> None:
        pool = ReceivePool(LARGE, LARGE)
        async with listening(pool=pool) as site:
            wires = [await site.admitted(f"pump-{number}") for number in range(4)]
            for wire in wires:
                await wire.open(1, open_request("log"))
            wires[0].send(chunk(1, 0, bytes(LARGE))[: LARGE // 2])
            await until(lambda: pool.lent_bytes)
            for wire in wires[1:]:
                wire.send(chunk(1, 0, bytes(LARGE))[: LARGE // 2])
            await until(lambda: len(pool._waiting) == len(wires) - 1)
            buffers = [each.session.connection._reader.buffer for each in site.server._connections if each.session]
            kept = sorted(len(each._carry) for each in buffers)
            assert kept[-2] <= CARRY_BYTES_MAX + CROWDED_BYTES, "all but the first that found nothing"

    async def test_waiters_for_the_disk_do_not_queue_behind_waiters_for_a_lease(self) -> None:
        pool = ReceivePool(LARGE, LARGE)
        async with listening(pool=pool) as site:
            storage, frame = site.site.bench.storage, chunk(1, 0, bytes(LARGE))
            site.site.bench.disk.free_bytes = 2**40
            lender, starving, crowding = [await site.admitted(f"pump-{number}") for number in range(3)]
            for wire in (lender, starving, crowding):
                await wire.open(1, open_request("log"))
            lender.send(frame[: LARGE // 2])
            await until(lambda: pool.lent_bytes)
            starving.send(frame)
            await until(lambda: len(pool._waiting) == 1)
            storage.holds_writes = True
            for start in range(0, 2 * LARGE, 1024):
                crowding.send(chunk(1, start, bytes(1024)))
            await until(lambda: pool.is_full and len(pool._waiting) == 2)
            lender.send(frame[LARGE // 2 : -1])
            await until(lambda: len(pool._waiting) == 3)
            storage.holds_writes = False
            while storage.writes:
                storage.write_next()
            lender.send(frame[-1:])
            for wire in (lender, starving, crowding):
                while (await wire.hear(frames.Ack, 1)).next_expected_byte < LARGE:
                    pass

    async def test_a_quiet_device_gets_a_ping(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await site.pass_s(SETTINGS.limits.keepalive_s + 1)
            assert isinstance((await wire.next()).frame, frames.Ping)

    async def test_last_words_give_the_memory_back(self) -> None:
        pool = ReceivePool(LARGE, LARGE)
        async with listening(pool=pool) as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            wire.send(chunk(1, 0, bytes(LARGE))[: LARGE // 2])
            await until(lambda: pool.lent_bytes)
            await site.pass_s(SETTINGS.limits.idle_timeout_s + 1)
            assert (await wire.hear(frames.Error)).code == ErrorCode.IDLE_TIMEOUT
            # Though the device has not closed yet.
            assert pool.lent_bytes == 0

    async def test_a_connection_with_much_unwritten_is_not_read_until_some_is_written(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("daemon.tcp.flow.UNWRITTEN_BYTES_MAX", 2 * LARGE)
        async with listening() as site:
            bench = site.site.bench
            bench.disk.free_bytes = 2**40
            bench.storage.holds_writes = True
            greedy, modest = await site.admitted(), await site.admitted("pump-2")
            for wire in (greedy, modest):
                await wire.open(1, open_request("log"))
            sent = 16 * LARGE
            for start in range(0, sent, LARGE):
                greedy.send(chunk(1, start, bytes(LARGE)))
            await until(lambda: len(bench.storage.writes) == 2)
            modest.send(chunk(1, 0, b"x"))
            await until(lambda: len(bench.storage.writes) > 2)
            assert [sum(map(len, write.pieces)) for write in bench.storage.writes] == [LARGE, LARGE, 1]
            bench.storage.holds_writes = False
            while bench.storage.writes:
                bench.storage.write_next()
            while (await greedy.hear(frames.Ack, 1)).next_expected_byte < sent:
                pass
            assert (await modest.hear(frames.Ack, 1)).next_expected_byte == 1

    async def test_a_connection_is_read_again_once_its_bytes_are_written_before_they_are_durable(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("daemon.tcp.flow.UNWRITTEN_BYTES_MAX", LARGE)
        async with listening() as site:
            bench = site.site.bench
            bench.disk.free_bytes = 2**40
            bench.storage.holds_writes = bench.storage.holds_syncs = True
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            for start in range(0, 3 * LARGE, LARGE):
                wire.send(chunk(1, start, bytes(LARGE)))
            for written in range(3):
                await until(lambda: len(bench.storage.writes) == 1)
                assert bench.storage.writes[0].offset == written * LARGE
                bench.storage.write_next()
            bench.storage.holds_writes = bench.storage.holds_syncs = False
            bench.storage.sync_next()
            while (await wire.hear(frames.Ack, 1)).next_expected_byte < 3 * LARGE:
                pass

    async def test_while_copies_fill_the_pool_no_connection_is_read(self) -> None:
        pool = ReceivePool(64 * 1024, 16 * 1024)
        async with listening(pool=pool) as site:
            bench = site.site.bench
            bench.disk.free_bytes = 2**40
            bench.storage.holds_writes = True
            pool_limit = 64 * 1024
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            sent = 64 * pool_limit
            for start in range(0, sent, 1024):
                wire.send(chunk(1, start, bytes(1024)))
            await until(lambda: pool.is_full)
            assert pool.copied_bytes < sent
            bench.storage.holds_writes = False
            while bench.storage.writes:
                bench.storage.write_next()
            while (await wire.hear(frames.Ack, 1)).next_expected_byte < sent:
                pass


class Recorder:
    """A connection's session, protocol and transport. "copied" gives back the memory that the connection waits for.

    Each `resume` brings `late`, and ends what it waited for.
    """

    state = ConnectionState.OPEN
    is_held = False
    is_quiet = True
    handshake_timeout_s = 10.0

    def __init__(self, pool: ReceivePool) -> None:
        self.pool = pool
        self.lease: PooledLease | None = None
        self.is_starved = self.has_more = False
        self.streams = Streams(1, 1)
        self.connection = self.timers = self
        self.clock = FakeClock()
        self.turns = Turns()
        self.handled: list[str] = []
        self.owner = DeviceConnection(cast("Host[DeviceConnection]", self), pool, None)
        self.owner.session = cast(Session, self)
        self.owner._protocol = cast(ServerConnection, self)
        self.owner._socket = cast(asyncio.Transport, self)
        self.owner._flow.begin(self, self.owner)

    def handle(self, event: str) -> None:
        self.handled.append(event)
        if event == "copied":
            self.owner._flow.hold(1, self.lease).release()

    def resume(self, _now: float) -> list[str]:
        self.is_starved = self.has_more = False
        return ["late"]

    def take_events(self) -> list[str]:
        return []

    def data_to_send(self, now: float) -> bytes:
        return b""

    def closed(self) -> None:
        self.handled.append("closed")

    def close(self) -> None:
        self.handled.append("given back")

    def disconnected(self, _connection: DeviceConnection, _reason: CloseReason) -> None:
        self.handled.append("disconnected")

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return False


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(ReceivePool(64 * 1024, 16 * 1024))


def test_memory_that_comes_back_during_a_connections_events_brings_its_later_input_behind_them(
    recorder: Recorder,
) -> None:
    recorder.lease = recorder.pool.lease(1)
    recorder.is_starved = True
    recorder.owner.changed()
    recorder.owner._handle(cast(list[ServerEvent], ["copied", "chunk", "finish"]), recorder.clock.now_s)
    assert recorder.handled == ["copied", "chunk", "finish", "late"]


async def test_input_that_waits_for_its_turn_is_taken_though_the_link_is_gone(recorder: Recorder) -> None:
    recorder.has_more = True
    recorder.owner.changed()
    recorder.owner.connection_lost(None)
    await until(lambda: recorder.handled == ["late", "closed", "given back", "disconnected"])


async def test_a_device_that_does_not_read_its_answers_gets_no_turn_until_it_does(recorder: Recorder) -> None:
    recorder.has_more = True
    recorder.owner.pause_writing()
    await asyncio.sleep(0)
    assert recorder.handled == []
    recorder.owner.resume_writing()
    await until(lambda: recorder.handled == ["late"])
