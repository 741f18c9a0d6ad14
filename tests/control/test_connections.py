"""How many connections there may be, whose turn it is to go, and who is cut because it takes too little."""

import asyncio
from dataclasses import dataclass

import pytest

from control import connections as connections_module
from control.connections import ConnectionLimits, Connections
from daemon.adapters.sockets import SocketState
from tests.support.fake_machine import FakeClock
from tests.support.waiting import until

LIMITS = ConnectionLimits(connections_max=3, rate_min_bytes_per_s=100, rate_window_s=10)


@dataclass(eq=False)
class FakeClient:
    address: str = "10.0.0.1"
    is_idle: bool = True
    unsent_bytes: int = 0
    acked_bytes: int = 0
    is_cut: bool = False
    is_known: bool = True

    def state(self) -> SocketState | None:
        return SocketState(self.unsent_bytes, self.acked_bytes) if self.is_known else None

    def cut(self) -> None:
        self.is_cut = True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def held(clock: FakeClock) -> Connections:
    return Connections(LIMITS, clock)


def test_the_longest_idle_connection_makes_room_for_the_next(held: Connections) -> None:
    first, second, third, fourth = (FakeClient() for _ in range(4))
    for each in (first, second, third):
        assert held.admit(each)
    held.spoke(first)
    second.is_idle = False
    assert held.admit(fourth)
    assert [each.is_cut for each in (first, second, third, fourth)] == [False, False, True, False]
    assert len(held) == 3


def test_if_all_are_busy_the_next_gets_no_place(held: Connections) -> None:
    clients = [FakeClient(is_idle=False) for _ in range(3)]
    assert all(held.admit(each) for each in clients)
    late = FakeClient()
    assert not held.admit(late)
    held.leave(late)
    held.leave(clients[0])
    assert held.admit(late)


def test_an_address_over_its_limit_makes_room_among_its_own(clock: FakeClock) -> None:
    held = Connections(ConnectionLimits(connections_max=10, connections_per_ip_max=2), clock)
    other, *theirs = FakeClient("10.0.0.2"), *(FakeClient() for _ in range(3))
    for each in (other, *theirs):
        assert held.admit(each)
    assert [each.is_cut for each in (other, *theirs)] == [False, True, False, False]
    theirs[1].is_idle = theirs[2].is_idle = False
    assert not held.admit(FakeClient())
    assert held.admit(FakeClient("10.0.0.3"))


def test_a_slow_but_steady_reader_is_kept(held: Connections, clock: FakeClock) -> None:
    reader = FakeClient(unsent_bytes=10_000_000)
    held.admit(reader)
    for _ in range(1000):
        held.check()
        clock.pass_s(1)
        # In jumps, as the windows of its system open.
        reader.acked_bytes += 1000 if clock.now_s % 10 == 0 else 0
    assert not reader.is_cut


@pytest.mark.parametrize("taken", [0, 999])
def test_a_reader_that_takes_too_little_over_the_window_is_cut(held: Connections, clock: FakeClock, taken: int) -> None:
    reader = FakeClient(unsent_bytes=10_000_000)
    held.admit(reader)
    held.check()
    reader.acked_bytes += taken
    clock.pass_s(9.9)
    held.check()
    assert not reader.is_cut
    clock.pass_s(0.1)
    held.check()
    assert reader.is_cut


def test_a_connection_to_which_nothing_is_owed_is_not_judged(held: Connections, clock: FakeClock) -> None:
    idle, unknown = FakeClient(), FakeClient(unsent_bytes=5, is_known=False)
    for each in (idle, unknown):
        held.admit(each)
    held.check()
    idle.unsent_bytes = 5
    held.check()
    clock.pass_s(5)
    idle.unsent_bytes = 0
    held.check()
    idle.unsent_bytes = 5
    clock.pass_s(5)
    held.check()
    clock.pass_s(9)
    held.check()
    assert not (idle.is_cut or unknown.is_cut)


async def test_it_watches_until_it_is_cancelled(
    held: Connections, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "CHECK_S", 0.001)
    reader = FakeClient(unsent_bytes=1)
    held.admit(reader)
    watching = asyncio.ensure_future(held.watch())

    def passed() -> bool:
        clock.pass_s(1)
        return reader.is_cut

    await until(passed)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


def test_all_can_be_cut_at_once(held: Connections) -> None:
    clients = [FakeClient(is_idle=False), FakeClient()]
    for each in clients:
        held.admit(each)
    held.cut_all()
    assert all(each.is_cut for each in clients)
