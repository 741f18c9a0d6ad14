"""The pool of receive memory: bounded, shared out in the order of asking, and reused."""

from dataclasses import dataclass

import pytest

from daemon.tcp.receive_pool import (
    CLASS_BYTES,
    RELIEF_S,
    SHARED_BYTES,
    SHARES,
    SLACK_BYTES,
    PendingWrite,
    PooledLease,
    ReceivePool,
)
from protocol.frame_buffer import Owner

KIB = 1024
SMALL, *_, LARGE = (size + SLACK_BYTES for size in CLASS_BYTES)


@pytest.fixture
def pool() -> ReceivePool:
    """Room for two of the largest pieces."""
    return ReceivePool(2 * LARGE, CLASS_BYTES[-1])


def taken(pool: ReceivePool, size_bytes: int) -> PooledLease:
    lease = pool.lease(size_bytes)
    assert lease is not None
    return lease


def test_there_is_one_shared_piece(pool: ReceivePool) -> None:
    assert len(pool.shared) == SHARED_BYTES
    assert pool.lent_bytes == 0


@pytest.mark.parametrize(
    ("wanted", "lent"),
    [(1, SMALL), (SMALL, SMALL), (SMALL + 1, 64 * KIB + SLACK_BYTES), (LARGE, LARGE), (LARGE + 1, LARGE)],
)
def test_a_lease_is_of_the_smallest_class_that_fits(pool: ReceivePool, wanted: int, lent: int) -> None:
    assert len(taken(pool, wanted).view) == lent
    assert pool.lent_bytes == lent


def test_the_largest_frame_has_a_class_of_its_own() -> None:
    frame_bytes_max = 3 * CLASS_BYTES[-1]
    pool = ReceivePool(0, frame_bytes_max)
    lease = taken(pool, frame_bytes_max)
    assert len(lease.view) == frame_bytes_max + SLACK_BYTES
    assert pool.lease(1) is None, "a pool of nothing holds one of the largest all the same"


def test_no_more_is_lent_than_the_pool_has(pool: ReceivePool) -> None:
    leases = [taken(pool, LARGE), taken(pool, LARGE)]
    assert pool.lease(1) is None
    leases.pop().release()
    assert pool.lent_bytes == LARGE
    assert pool.lease(LARGE) is not None


def test_memory_goes_back_with_its_last_holder(pool: ReceivePool) -> None:
    lease = taken(pool, LARGE)
    lease.retain()
    lease.release()
    assert pool.lent_bytes == LARGE
    lease.release()
    assert pool.lent_bytes == 0


def test_memory_is_used_again(pool: ReceivePool) -> None:
    lease = taken(pool, 1)
    lease.release()
    assert taken(pool, 1) is lease


def test_idle_pieces_make_room_for_other_sizes(pool: ReceivePool) -> None:
    small = [taken(pool, 1) for _ in range(2 * LARGE // SMALL)]
    for lease in small:
        lease.release()
    assert len(taken(pool, LARGE).view) == LARGE
    assert len(taken(pool, LARGE).view) == LARGE
    assert pool.lease(1) is None


class Waiter:
    """Waits for memory of a size, like a connection whose frame is cut off."""

    def __init__(self, pool: ReceivePool, size_bytes: int) -> None:
        self.lease: PooledLease | None = None
        self._pool = pool
        self._size_bytes = size_bytes
        self.is_gone = False
        pool.when_free(self.wake)

    def wake(self) -> None:
        if self.is_gone:
            return
        self.lease = self._pool.lease(self._size_bytes)
        if self.lease is None:
            self._pool.when_free(self.wake)


@pytest.fixture
def exhausted(pool: ReceivePool) -> tuple[PooledLease, PooledLease]:
    return taken(pool, LARGE), taken(pool, LARGE)


Held = tuple[PooledLease, PooledLease]


def test_waiters_are_woken_in_order(pool: ReceivePool, exhausted: Held) -> None:
    waiters = [Waiter(pool, LARGE) for _ in range(3)]
    assert pool.waits == 3
    exhausted[0].release()
    assert [waiter.lease is not None for waiter in waiters] == [True, False, False]
    exhausted[1].release()
    assert [waiter.lease is not None for waiter in waiters] == [True, True, False]


def test_one_large_piece_serves_all_waiters_that_fit_into_it(pool: ReceivePool, exhausted: Held) -> None:
    waiters = [Waiter(pool, 1) for _ in range(5)]
    exhausted[0].release()
    assert all(waiter.lease is not None for waiter in waiters)


def test_a_waiter_that_has_gone_keeps_no_memory_from_the_next(pool: ReceivePool, exhausted: Held) -> None:
    waiters = [Waiter(pool, LARGE) for _ in range(3)]
    waiters[0].is_gone = waiters[1].is_gone = True
    exhausted[0].release()
    assert waiters[2].lease is not None


def test_small_ones_do_not_overtake_a_large_one_for_ever(pool: ReceivePool) -> None:
    small = [taken(pool, 1) for _ in range(2 * LARGE // SMALL)]
    large, later = Waiter(pool, LARGE), Waiter(pool, 1)
    for count, lease in enumerate(small):
        lease.release()
        if large.lease is not None:
            break
        assert later.lease is None, f"overtaken after {count} pieces"
    assert large.lease is not None
    assert later.lease is not None or pool.lease(1) is None


def test_a_waiter_is_woken_once(pool: ReceivePool, exhausted: Held) -> None:
    woken: list[int] = []
    pool.when_free(lambda: woken.append(1))
    exhausted[0].release()
    exhausted[1].release()
    assert woken == [1]


def test_waiters_for_the_disk_do_not_queue_behind_waiters_for_a_lease() -> None:
    pool = ReceivePool(1024 * 1024, 1024 * 1024)
    woken: list[str] = []
    held = pool.lease(1024 * 1024)
    assert held is not None
    charge = PendingWrite(pool, 1024 * 1024, None, lambda _: None)

    def starving() -> None:
        woken.append("starving")
        pool.when_free(starving)

    pool.when_free(starving)
    pool.when_free(lambda: woken.append("crowded"))
    charge.release()
    assert woken == ["starving", "crowded"]
    held.release()
    assert woken == ["starving", "crowded", "starving"]


def test_copied_data_that_waits_to_be_written_is_counted_until_its_last_holder_releases_it() -> None:
    pool = ReceivePool(1024 * 1024, 1024 * 1024)
    woken: list[str] = []
    written: list[int] = []
    charge = PendingWrite(pool, 1024 * 1024, None, written.append)
    assert pool.is_full
    pool.when_free(lambda: woken.append("first"))
    charge.retain()
    charge.release()
    assert (woken, written) == ([], [])
    charge.release()
    assert not pool.is_full
    assert pool.copied_bytes == 0
    assert (woken, written) == (["first"], [1024 * 1024])


def test_lent_data_that_waits_to_be_written_goes_back_with_its_charge_and_is_not_counted_twice() -> None:
    pool = ReceivePool(1024 * 1024, 1024 * 1024)
    lease = pool.lease(16 * 1024)
    assert lease is not None
    written: list[int] = []
    charge = PendingWrite(pool, 10, lease, written.append)
    assert charge.view is lease.view
    assert (pool.copied_bytes, pool.lent_bytes > 0) == (0, True)
    charge.release()
    assert (pool.copied_bytes, pool.lent_bytes, written) == (0, 0, [10])


def test_try_lease_gets_nothing_while_others_wait(pool: ReceivePool) -> None:
    halves = [taken(pool, LARGE // 2) for _ in range(3)]
    large = Waiter(pool, LARGE)
    halves[0].release()
    assert large.lease is None
    assert pool.try_lease(LARGE // 2) is None, "or two of them would never be back at once"
    halves[1].release()
    assert large.lease is not None
    assert pool.try_lease(1) is not None


# One device's share.

FIRST, SECOND, THIRD = (("default", name) for name in ("first", "second", "third"))


@dataclass(eq=False)
class Part:
    """A device in the middle of a chunk."""

    owner: Owner
    lease: PooledLease | None = None
    starved: bool = False
    is_slow: bool = True
    rate_bytes_per_s: float = 0
    drops: int = 0

    def drop(self) -> None:
        self.drops += 1
        assert self.lease is not None
        lease, self.lease = self.lease, None
        lease.release()


def parts_of(pool: ReceivePool, owner: Owner, count: int) -> list[Part]:
    """As many parts as the pool lends to this device, at most `count`; each has the largest piece."""
    parts = []
    for _ in range(count):
        part = Part(owner)
        part.lease = pool.lease(LARGE, part)
        if part.lease is not None:
            parts.append(part)
    return parts


@pytest.fixture
def wide() -> ReceivePool:
    """Room for 16 of the largest pieces, so 4 for the share of one device."""
    return ReceivePool(16 * LARGE, CLASS_BYTES[-1])


def test_one_device_alone_gets_all_but_the_last_share(wide: ReceivePool) -> None:
    assert len(parts_of(wide, FIRST, 100)) == 16 - 16 // SHARES
    assert len(parts_of(wide, SECOND, 100)) == 16 // SHARES, "what the first has left"
    assert parts_of(wide, THIRD, 1) == []


def test_while_others_wait_a_device_gets_its_share(wide: ReceivePool) -> None:
    wide.when_free(lambda: None, SECOND)
    assert len(parts_of(wide, FIRST, 100)) == 16 // SHARES


def test_memory_that_comes_back_passes_by_a_device_with_its_share(wide: ReceivePool) -> None:
    greedy, modest = parts_of(wide, FIRST, 100), parts_of(wide, SECOND, 100)
    assert parts_of(wide, FIRST, 1) == []
    served: list[str] = []

    def again() -> None:
        served.append("first")
        if not parts_of(wide, FIRST, 1):
            wide.when_free(again, FIRST)

    wide.when_free(again, FIRST)
    wide.when_free(lambda: served.append("third"), THIRD)
    modest[0].drop()
    assert served[-1] == "third"
    assert not parts_of(wide, FIRST, 1), "it has more than its share"
    for part in greedy[: 16 // SHARES * 2 + 1]:
        part.drop()
    assert served[-1] == "first"
    assert wide.try_lease(1) is not None, "nobody waits"


def test_devices_take_turns_at_what_comes_back(wide: ReceivePool) -> None:
    held = [part for owner in (FIRST, SECOND) for part in parts_of(wide, owner, 100)]
    served: list[str] = []
    for owner, name in ((THIRD, "third"), (THIRD, "third"), (("default", "fourth"), "fourth")):
        wide.when_free(lambda name=name: served.append(name), owner)  # type: ignore[misc]  # a value of this turn
    held[0].drop()
    assert served == ["third", "fourth", "third"]


def test_a_part_that_grows_counts_what_it_gives_back(pool: ReceivePool) -> None:
    part, other = Part(FIRST), Part(SECOND)
    part.lease, other.lease = pool.lease(LARGE // 2, part), pool.lease(LARGE, other)
    small = part.lease
    assert small is not None
    small.retain()
    assert pool.lease(LARGE, part) is None, "the disk still needs it"
    small.release()
    part.lease = pool.lease(LARGE, part)
    assert part.lease is not None
    small.release()
    assert pool.lent_bytes == 2 * LARGE
    part.drop()
    other.drop()
    assert len(parts_of(pool, FIRST, 1)) == 1


def test_what_is_borrowed_beside_a_part_does_not_count_as_given_back(pool: ReceivePool) -> None:
    part = parts_of(pool, FIRST, 1)[0]
    other = parts_of(pool, SECOND, 1)[0]
    assert pool.try_lease(LARGE, part) is None
    other.drop()
    assert pool.lent_bytes == LARGE


# Memory that is taken back.


def test_while_nobody_waits_the_slow_keep_their_memory(wide: ReceivePool) -> None:
    parts = parts_of(wide, FIRST, 100)
    wide.relieve(0)
    assert not any(part.drops for part in parts)


def test_the_slowest_goes_first_and_no_more_than_is_needed(wide: ReceivePool) -> None:
    parts = [*parts_of(wide, FIRST, 4), *parts_of(wide, SECOND, 4), *parts_of(wide, THIRD, 4)]
    parts += parts_of(wide, ("default", "fourth"), 4)
    for number, part in enumerate(parts):
        part.rate_bytes_per_s = (number + 5) % 16
    slowest = min(parts, key=lambda part: part.rate_bytes_per_s)
    waiter = Waiter(wide, LARGE)
    wide.relieve(0)
    assert waiter.lease is not None
    assert [part for part in parts if part.drops] == [slowest]
    assert wide.reclaims == 1


def test_a_device_beyond_its_share_goes_first_and_one_that_waits_itself_last(wide: ReceivePool) -> None:
    greedy, modest = parts_of(wide, FIRST, 100), parts_of(wide, SECOND, 100)
    for part in greedy:
        part.rate_bytes_per_s = 1000
    greedy[0].rate_bytes_per_s, greedy[0].starved = 0, True
    greedy[1].rate_bytes_per_s = 999
    waiter = Waiter(wide, LARGE)
    wide.relieve(0)
    assert waiter.lease is not None
    assert [part for part in (*greedy, *modest) if part.drops] == [greedy[1]]


def test_the_quick_keep_their_memory(wide: ReceivePool) -> None:
    parts = [part for owner in (FIRST, SECOND) for part in parts_of(wide, owner, 100)]
    for part in parts:
        part.is_slow = False
    Waiter(wide, LARGE)
    wide.relieve(0)
    assert wide.reclaims == 0


def test_for_a_device_that_has_its_share_no_other_loses_memory(wide: ReceivePool) -> None:
    greedy, modest = parts_of(wide, FIRST, 100), parts_of(wide, SECOND, 1)
    part = Part(FIRST)
    assert wide.lease(LARGE, part) is None
    wide.when_free(lambda: None, FIRST)
    for each in greedy:
        each.is_slow = False
    wide.relieve(0)
    assert modest[0].drops == 0
    greedy[0].is_slow = True
    wide.relieve(RELIEF_S)
    assert greedy[0].drops == 1


def test_however_many_wait_it_looks_for_the_slow_now_and_then(wide: ReceivePool) -> None:
    parts = [part for owner in (FIRST, SECOND) for part in parts_of(wide, owner, 100)]
    for now, reclaims in ((0.0, 1), (RELIEF_S / 2, 1), (RELIEF_S, 3)):
        Waiter(wide, LARGE)
        wide.relieve(now)
        assert wide.reclaims == reclaims
    assert sum(part.drops for part in parts) == 3
