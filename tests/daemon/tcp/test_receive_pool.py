"""The pool of receive memory: bounded, shared out in the order of asking, and reused."""

import pytest

from daemon.tcp.receive_pool import CLASS_BYTES, SHARED_BYTES, SLACK_BYTES, PendingWrite, PooledLease, ReceivePool

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
