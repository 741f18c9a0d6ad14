"""Turns: one for each device, whatever its connections; little use costs no turn; nobody waits for ever."""

import asyncio
from collections.abc import Callable

import pytest

from daemon.tcp.turns import REFILL, TURN_S, Share, Turns
from tests.support.loop_turns import turns as loop_turns
from tests.support.loop_turns import until

HEAVY, MODEST = ("default", "heavy"), ("default", "modest")


class Work:
    """Work of connections that takes time of a clock of its own, and asks for another turn until it is done."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.now_s = 100.0
        self.done: list[str] = []

    def begin(self, share: Share, name: str, pieces: int, piece_s: float = 1.1 * TURN_S) -> None:
        self.turns.wait(share, self._piece(share, name, pieces, piece_s))

    def _piece(self, share: Share, name: str, pieces: int, piece_s: float) -> Callable[[], None]:
        def run() -> None:
            self.done.append(name)
            share.spend(self.now_s, self.now_s + piece_s)
            self.now_s += piece_s
            if pieces > 1:
                self.begin(share, name, pieces - 1, piece_s)

        return run


@pytest.fixture
def work() -> Work:
    return Work()


def test_connections_of_one_device_have_one_share_until_the_last_has_left(work: Work) -> None:
    first, second = work.turns.join(HEAVY), work.turns.join(HEAVY)
    assert first is second
    assert work.turns.join(MODEST) is not first
    work.turns.leave(first)
    assert work.turns.join(HEAVY) is first
    for _ in range(2):
        work.turns.leave(first)
    assert work.turns.join(HEAVY) is not first


def test_a_device_that_takes_little_of_the_loop_never_has_to_wait() -> None:
    share = Share(MODEST)
    for at in range(10_000):
        share.spend(at * 0.01, at * 0.01 + 0.9 * REFILL * 0.01)
        assert not share.is_spent


def test_a_device_that_takes_more_has_to_wait_once_its_turn_is_used_up() -> None:
    share = Share(HEAVY)
    share.spend(0, 0.6 * TURN_S)
    assert not share.is_spent
    share.spend(0.6 * TURN_S, 1.2 * TURN_S)
    assert share.is_spent


def test_time_gives_a_turn_back() -> None:
    share = Share(HEAVY)
    share.spend(0, TURN_S)
    assert share.is_spent
    later_s = TURN_S + TURN_S / REFILL
    share.spend(later_s, later_s)
    assert share.used_s == pytest.approx(0)


async def test_devices_take_turns_whatever_the_number_of_their_connections(work: Work) -> None:
    heavy, modest = work.turns.join(HEAVY), work.turns.join(MODEST)
    for number in range(50):
        work.begin(heavy, f"heavy {number}", 10)
    work.begin(modest, "modest", 5)
    await until(lambda: len(work.done) == 505)
    assert work.done[:10:2] == ["heavy 0", "heavy 1", "heavy 2", "heavy 3", "heavy 4"]
    assert work.done[1:10:2] == ["modest"] * 5


async def test_small_work_of_one_device_shares_a_turn(work: Work) -> None:
    heavy, modest = work.turns.join(HEAVY), work.turns.join(MODEST)
    for number in range(6):
        work.begin(heavy, f"heavy {number}", 1, TURN_S / 2)
    work.begin(modest, "modest", 1)
    await until(lambda: len(work.done) == 7)
    assert work.done.index("modest") == 2


async def test_other_work_of_the_loop_comes_between_two_turns(work: Work) -> None:
    share = work.turns.join(HEAVY)
    work.begin(share, "heavy", 5)
    seen = []
    while len(work.done) < 5:
        await asyncio.sleep(0)
        seen.append(len(work.done))
    assert seen == [1, 2, 3, 4, 5], "one turn in each turn of the loop"


async def test_a_turn_that_took_too_long_is_paid_back_while_others_run(work: Work) -> None:
    heavy, modest = work.turns.join(HEAVY), work.turns.join(MODEST)
    work.begin(heavy, "heavy", 2, 4.5 * TURN_S)
    work.begin(modest, "modest", 4)
    await until(lambda: len(work.done) == 6)
    assert work.done == ["heavy", "modest", "modest", "modest", "modest", "heavy"]


async def test_work_that_takes_no_time_still_lets_others_run(work: Work) -> None:
    heavy, modest = work.turns.join(HEAVY), work.turns.join(MODEST)
    work.begin(heavy, "heavy", 100, 0.0)
    work.begin(modest, "modest", 1)
    await loop_turns(5)
    assert "modest" in work.done


async def test_one_that_leaves_with_work_waiting_still_gets_its_turn(work: Work) -> None:
    share = work.turns.join(HEAVY)
    work.begin(share, "last", 3)
    work.turns.leave(share)
    await until(lambda: work.done == ["last"] * 3)
