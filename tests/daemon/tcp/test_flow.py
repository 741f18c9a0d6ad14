"""When a connection is read, and when not: each reason alone, and the edges where the first comes and the last goes."""

import asyncio
import math
from typing import cast

import pytest

from daemon.tcp.flow import CROWDED_BYTES, RUN_OVERHEAD_BYTES, STALLED_S, UNWRITTEN_BYTES_MAX, Flow, PauseReason
from daemon.tcp.receive_pool import ReceivePool
from daemon.tcp.turns import TURN_S, UNACKNOWLEDGED_BYTES_MAX, Turns
from daemon.tcp.turns import UNWRITTEN_BYTES_MAX as SHARED_UNWRITTEN_MAX
from protocol.server import ServerConnection
from protocol.streams import Streams
from tests.support.waiting import until


class FakeProtocol:
    """What the flow asks of the protocol."""

    def __init__(self, pool: ReceivePool) -> None:
        self._pool = pool
        self.streams = Streams(1, 1 << 30)
        self.is_held = False
        self.has_more = False
        self.is_starved = False
        self.has_lease = False
        self.owner = ("tenant", "device")

    def get_buffer(self) -> memoryview:
        return self._pool.shared


class Rig:
    """A flow between a transport and an input that write down what is asked of them."""

    def __init__(self, turns: Turns | None = None) -> None:
        self.pool = ReceivePool(64 * 1024, 16 * 1024)
        self.protocol = FakeProtocol(self.pool)
        self.turns = turns or Turns()
        self.flow = Flow(self.pool, self.turns, self.turns.join(("",)))
        self.flow.begin(self, self)
        self.calls: list[str] = []
        self.is_lost = False

    def update(self) -> None:
        self.flow.update(cast(ServerConnection, self.protocol))

    def buffer(self) -> memoryview:
        return self.flow.buffer(cast(ServerConnection, self.protocol))

    # The transport.

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def is_closing(self) -> bool:
        return self.is_lost

    # The input, which looks again as a connection does.

    def changed(self) -> None:
        self.calls.append("changed")
        self.update()

    def go_on(self) -> None:
        self.calls.append("go on")
        self.protocol.has_more = self.protocol.is_starved = False
        self.update()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_without_a_reason_nothing_is_asked_of_the_transport(rig: Rig) -> None:
    rig.update()
    assert (rig.flow.reasons, rig.calls) == (0, [])


def test_a_request_that_needs_an_answer_pauses_until_the_answer(rig: Rig) -> None:
    rig.protocol.is_held = True
    rig.update()
    assert rig.flow.reasons == PauseReason.ANSWER
    rig.protocol.is_held = False
    rig.update()
    assert rig.flow.reasons == 0
    assert rig.calls == ["pause", "resume"]


def test_a_reason_from_before_the_transport_pauses_it_too(rig: Rig) -> None:
    rig.flow = Flow(rig.pool, rig.turns, rig.flow.share)
    rig.protocol.is_held = True
    rig.update()
    rig.flow.begin(rig, rig)
    rig.update()
    assert rig.calls == ["pause"]


async def test_input_that_is_left_over_gets_its_turn(rig: Rig) -> None:
    rig.protocol.has_more = True
    rig.update()
    rig.update()
    assert rig.flow.reasons == PauseReason.TURN
    assert rig.calls == ["pause"]
    await until(lambda: rig.flow.reasons == 0)
    assert rig.calls == ["pause", "go on", "resume"]


def test_without_memory_it_waits_for_some(rig: Rig) -> None:
    lease = rig.pool.lease(1)
    assert lease is not None
    rig.protocol.is_starved = True
    rig.update()
    assert rig.flow.reasons == PauseReason.MEMORY
    lease.release()
    assert rig.calls == ["pause", "go on", "resume"]


def test_memory_that_is_no_longer_needed_is_left_to_others(rig: Rig) -> None:
    lease = rig.pool.lease(1)
    assert lease is not None
    rig.protocol.is_starved = True
    rig.update()
    rig.protocol.is_starved = False
    rig.update()
    lease.release()
    assert rig.calls == ["pause", "resume"]
    assert rig.pool.try_lease(1) is not None, "others get memory, since nobody waits"


async def test_where_nothing_is_lent_nothing_is_waited_for(rig: Rig) -> None:
    rig.protocol.is_starved = True
    rig.update()
    assert rig.flow.reasons == PauseReason.TURN
    await until(lambda: rig.calls == ["pause", "go on", "resume"])


def test_a_pool_full_of_copies_pauses_until_some_are_written(rig: Rig) -> None:
    copies = rig.flow.hold(64 * 1024, None)
    rig.update()
    assert rig.flow.reasons == PauseReason.MEMORY
    copies.release()
    assert rig.calls == ["pause", "go on", "resume"]


def test_as_much_as_may_await_the_disk_pauses_until_some_is_written(rig: Rig) -> None:
    leases = [rig.pool.lease(1), rig.pool.lease(1)]
    waiting = [rig.flow.hold(UNWRITTEN_BYTES_MAX // 2, lease) for lease in leases]
    rig.update()
    assert rig.flow.reasons == PauseReason.DISK
    for each in waiting:
        each.release()
    assert rig.calls == ["pause", "changed", "resume"]


def test_less_than_may_await_the_disk_is_no_reason(rig: Rig) -> None:
    held = rig.flow.hold(UNWRITTEN_BYTES_MAX - RUN_OVERHEAD_BYTES - 1, rig.pool.lease(1))
    rig.update()
    held.release()
    assert (rig.flow.reasons, rig.calls) == (0, [])


def test_a_run_of_one_byte_counts_with_what_its_objects_take(rig: Rig) -> None:
    held = [rig.flow.hold(1, rig.pool.lease(1)) for _ in range(UNWRITTEN_BYTES_MAX // RUN_OVERHEAD_BYTES)]
    rig.update()
    assert rig.flow.reasons & PauseReason.DISK
    for each in held:
        each.release()
    assert rig.flow.reasons == 0


def test_all_connections_of_a_device_pause_when_too_much_of_it_awaits_the_disk() -> None:
    turns = Turns()
    busy, modest, late = Rig(turns), Rig(turns), Rig(turns)
    held = [busy.flow.hold(SHARED_UNWRITTEN_MAX // 2, busy.pool.lease(1)) for _ in range(2)]
    for each in (modest, late):
        each.update()
        assert (each.flow.reasons, each.calls) == (PauseReason.DISK, ["pause"])
    late.flow.close()
    held[0].release()
    assert (modest.flow.reasons, modest.calls) == (0, ["pause", "changed", "resume"])
    assert late.calls == ["pause"]
    held[1].release()


def test_one_write_lets_one_connection_go_on_and_the_last_lets_all() -> None:
    turns = Turns()
    rigs = [Rig(turns) for _ in range(4)]
    held = [rigs[0].flow.hold(SHARED_UNWRITTEN_MAX, None), rigs[0].flow.hold(1, None)]
    for each in rigs[1:]:
        each.update()
    held[0].release()
    assert [each.flow.reasons for each in rigs[1:]] == [0, PauseReason.DISK, PauseReason.DISK]
    held[1].release()
    assert [each.flow.reasons for each in rigs[1:]] == [0, 0, 0]


def test_all_connections_of_a_device_pause_when_too_much_of_it_awaits_its_ack() -> None:
    turns = Turns()
    busy, modest, late = Rig(turns), Rig(turns), Rig(turns)
    busy.protocol.streams.unacknowledged_bytes = UNACKNOWLEDGED_BYTES_MAX
    for each in (busy, modest, late):
        each.update()
        assert (each.flow.reasons, each.calls) == (PauseReason.DISK, ["pause"])
    busy.protocol.streams.unacknowledged_bytes -= 1
    busy.update()
    assert [each.flow.reasons for each in (busy, modest, late)] == [0, 0, PauseReason.DISK]
    busy.flow.close()
    assert late.flow.reasons == 0
    assert busy.flow.share.unacknowledged_bytes == 0


async def test_a_device_that_has_used_its_turn_is_paused_until_the_next(rig: Rig) -> None:
    rig.flow.share.spend(0, 1.5 * TURN_S)
    rig.update()
    assert (rig.flow.reasons, rig.calls) == (PauseReason.TURN, ["pause"])
    await until(lambda: rig.flow.reasons == 0)
    assert rig.calls == ["pause", "go on", "resume"]


async def test_a_connection_whose_bytes_await_the_disk_asks_for_no_turn(rig: Rig) -> None:
    held = rig.flow.hold(UNWRITTEN_BYTES_MAX, None)
    rig.protocol.has_more = True
    rig.update()
    await asyncio.sleep(0)
    assert (rig.flow.reasons, rig.calls) == (PauseReason.DISK | PauseReason.MEMORY, ["pause"])
    held.release()
    assert rig.flow.reasons == PauseReason.TURN
    await until(lambda: rig.flow.reasons == 0)


async def test_a_device_that_does_not_read_is_not_read_and_gets_no_turn(rig: Rig) -> None:
    rig.protocol.has_more = True
    rig.flow.stall(0)
    rig.update()
    await asyncio.sleep(0)
    assert rig.flow.reasons == PauseReason.PEER
    assert rig.calls == ["pause"]
    rig.flow.unstall()
    rig.update()
    assert rig.flow.reasons == PauseReason.TURN
    await until(lambda: rig.calls == ["pause", "go on", "resume"])


def test_a_device_is_stalled_when_it_has_read_nothing_for_too_long(rig: Rig) -> None:
    assert rig.flow.deadline == math.inf
    rig.flow.stall(5)
    assert rig.flow.deadline == 5 + STALLED_S
    rig.flow.unstall()
    assert rig.flow.deadline == math.inf


def test_only_the_first_reason_pauses_and_only_the_last_resumes(rig: Rig) -> None:
    rig.protocol.is_held = True
    rig.update()
    rig.flow.stall(0)
    rig.update()
    assert rig.flow.reasons == PauseReason.ANSWER | PauseReason.PEER
    rig.protocol.is_held = False
    rig.update()
    assert rig.calls == ["pause"]
    rig.flow.unstall()
    rig.update()
    assert rig.calls == ["pause", "resume"]


def test_a_transport_that_closes_is_left_alone(rig: Rig) -> None:
    rig.is_lost = rig.protocol.is_held = True
    rig.update()
    assert rig.calls == []


async def test_at_the_end_all_is_read_and_nobody_waits(rig: Rig) -> None:
    lease = rig.pool.lease(1)
    assert lease is not None
    held = rig.flow.hold(UNWRITTEN_BYTES_MAX, lease)
    rig.protocol.is_starved = True
    rig.update()
    rig.flow.release()
    held.release()
    await asyncio.sleep(0)
    assert (rig.flow.reasons, rig.calls) == (0, ["pause", "resume"])


@pytest.mark.parametrize("reason", [PauseReason.TURN, PauseReason.MEMORY])
async def test_nothing_goes_on_when_the_transport_is_gone(rig: Rig, reason: PauseReason) -> None:
    lease = rig.pool.lease(1)
    assert lease is not None
    rig.protocol.has_more = reason is PauseReason.TURN
    rig.protocol.is_starved = reason is PauseReason.MEMORY
    rig.update()
    assert rig.flow.reasons == reason
    rig.flow.close()
    lease.release()
    await asyncio.sleep(0)
    assert rig.calls == ["pause"]


def test_without_a_lease_no_more_is_read_than_the_pool_can_keep(rig: Rig) -> None:
    assert len(rig.buffer()) == rig.pool.readable_bytes(rig.protocol.owner)
    while rig.pool.lease(1) is not None:
        pass
    assert len(rig.buffer()) == CROWDED_BYTES
    rig.protocol.has_lease = True
    assert len(rig.buffer()) == len(rig.pool.shared), "a lease has its own end"


async def test_when_its_own_bytes_are_written_a_connection_looks_again_at_the_lease_that_it_has(rig: Rig) -> None:
    waiting = rig.flow.hold(1, rig.pool.lease(1))
    other = rig.pool.lease(1)
    assert other is not None
    rig.protocol.is_starved = True
    rig.update()
    rig.pool.stop_waiting(rig.flow._memory_came)
    waiting.release()
    assert rig.calls == ["pause", "go on", "resume"]


def test_little_is_read_while_copies_fill_the_pool(rig: Rig) -> None:
    rig.protocol.has_lease = True
    held = rig.flow.hold(64 * 1024, None)
    assert len(rig.buffer()) == CROWDED_BYTES
    held.release()
    assert len(rig.buffer()) == len(rig.pool.shared)
