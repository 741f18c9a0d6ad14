"""The bounded pool of receive memory: one shared piece for small input, leases for large frames under way."""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable

from protocol.frame_buffer import Borrower, Lease, Owner

SHARED_BYTES = 1024 * 1024
"""The most that one read takes while no large frame is under way: a thousand small chunks at once, and no more than a
core's second-level cache. With 512 KiB, chunks of 1 KiB arrived at 0.9 of the rate, with 2 MiB at 0.8."""

CLASS_BYTES = (16 * 1024, 64 * 1024, 256 * 1024, 512 * 1024, 1024 * 1024)
"""Sizes of leases: a slow device in the middle of a small frame must not hold memory for a large one."""

SLACK_BYTES = 4096
"""On top of each class, so that a power of two of data fits together with its prefixes and headers."""

SHARES = 4
"""While memory is short or others wait, one device may hold a fourth of the pool: enough for the whole window of one
connection at the default size, and three more devices still find as much. The last fourth of the pool is lent within
this share alone, so that one device never leaves nothing."""

RELIEF_S = 0.5
"""Between two looks for slow frames, however many connections wait."""

Waiter = Callable[[], None]

_NOBODY = ("", "")
"""No device: a tenant and a device have names."""

_NO_MEMORY = memoryview(b"")


class PooledLease:
    """One piece of the pool. Only its memory may be used outside of the event loop."""

    __slots__ = ("_borrower", "_holders", "_pool", "owner", "view")

    def __init__(self, pool: "ReceivePool", size_bytes: int) -> None:
        self._pool = pool
        self._holders = 0
        self._borrower: Borrower | None = None
        self.owner: Owner | None = None
        self.view = memoryview(bytearray(size_bytes))

    def lend(self, owner: Owner | None, borrower: Borrower | None) -> None:
        """Begin with one holder."""
        self.owner, self._borrower, self._holders = owner, borrower, 1

    @property
    def is_shared(self) -> bool:
        return self._holders > 1

    @property
    def is_slow(self) -> bool:
        """Whether a slow frame is received into it."""
        return self._borrower is not None and self._borrower.lease is self and self._borrower.is_slow

    def rank(self, is_beyond_share: bool) -> tuple[bool, bool, float]:
        """The lowest is reclaimed first."""
        borrower = self._borrower
        if borrower is None:
            raise ValueError("nobody receives into this lease")
        return borrower.starved, not is_beyond_share, borrower.rate_bytes_per_s

    def reclaim(self) -> None:
        """Let whoever receives into it give it back."""
        if self._borrower is not None:
            self._borrower.drop()

    def retain(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._borrower = None
            self._pool.take_back(self)


class PendingWrite:
    """Received data that awaits the disk, in `lease` or else in memory of its own, which then counts against the pool.

    `written` gets the number of bytes once the last holder has released it.
    """

    __slots__ = ("_count", "_holders", "_lease", "_pool", "_written", "view")

    def __init__(self, pool: "ReceivePool", count: int, lease: Lease | None, written: Callable[[int], None]) -> None:
        self._pool = pool
        self._count = count
        self._lease = lease
        self._written = written
        self._holders = 1
        if lease is None:
            pool.copied(count)
            self.view = _NO_MEMORY
        else:
            self.view = lease.view

    @property
    def is_shared(self) -> bool:
        return self._holders > 1

    def retain(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if self._holders:
            return
        if self._lease is not None:
            self._lease.release()
        else:
            self._pool.copies_written(self._count)
        self._written(self._count)


class ReceivePool:
    """Lends at most `pool_bytes`, the largest piece being for a frame of `frame_bytes_max`.

    What waits for memory waits by device: each device's first waiter has its turn, so many connections of one device
    wait no less than one of another.
    """

    def __init__(self, pool_bytes: int, frame_bytes_max: int) -> None:
        self.shared = memoryview(bytearray(max(SHARED_BYTES, SLACK_BYTES)))
        largest = max(frame_bytes_max, CLASS_BYTES[-1])
        classes = {each for each in CLASS_BYTES if each < largest} | {largest}
        self._classes = sorted(each + SLACK_BYTES for each in classes)
        self._pool_bytes = max(pool_bytes, self._classes[-1])
        self._share_bytes = max(self._pool_bytes // SHARES, self._classes[-1])
        self._reserve_bytes = self._pool_bytes // SHARES
        self._idle: dict[int, list[PooledLease]] = {size: [] for size in self._classes}
        self._idle_bytes = 0
        self._lent: set[PooledLease] = set()
        self._lent_to: Counter[Owner | None] = Counter()
        self._waiting: OrderedDict[Owner | None, OrderedDict[Waiter, None]] = OrderedDict()
        self._owners: dict[Waiter, Owner | None] = {}
        self._capped: set[Owner | None] = set()
        """Devices that have their share: what they wait for is memory of their own."""
        self._relieved_s = -math.inf
        self._copied_bytes_max = pool_bytes
        self.copied_bytes = 0
        """Data outside of the leases that awaits the disk."""
        self.lent_bytes = 0
        self.waits = 0
        self.reclaims = 0
        """How often memory was taken back from a slow frame."""
        self.is_full = False
        """As much copied data awaits the disk as is allowed: no connection should receive more."""

    def lease(self, size_bytes: int, borrower: Borrower | None = None) -> PooledLease | None:
        """Memory of `size_bytes` or more, or the largest piece there is.

        None when too little is left, or when `borrower`'s device has its share and others need the rest. A lease that
        the borrower receives into counts as given back.
        """
        held = None if borrower is None else borrower.lease
        return self._lend(size_bytes, borrower, 0 if held is None or held.is_shared else len(held.view))

    def try_lease(self, size_bytes: int, borrower: Borrower | None = None) -> PooledLease | None:
        """As `lease`, for a caller that can do without: nothing while others wait, since what comes back is theirs."""
        return None if self._is_awaited else self._lend(size_bytes, borrower, 0)

    def _lend(self, size_bytes: int, borrower: Borrower | None, returned_bytes: int) -> PooledLease | None:
        owner = None if borrower is None else borrower.owner
        size = next((each for each in self._classes if each >= size_bytes), self._classes[-1])
        growth = size - returned_bytes
        self._capped.discard(owner)
        if growth > self._free_bytes:
            return None
        if growth > self._room_bytes(owner):
            self._capped.add(owner)
            return None
        idle = self._idle[size]
        if idle:
            lease = idle.pop()
            self._idle_bytes -= size
        else:
            self._drop_idle(growth)
            lease = PooledLease(self, size)
        lease.lend(owner, borrower)
        self._lent.add(lease)
        self._lent_to[owner] += size
        self.lent_bytes += size
        return lease

    def readable_bytes(self, owner: Owner | None) -> int:
        """How much a device may send into the shared piece at once, so that a lease holds what is left of it.

        A piece may be four times as large as what it has to hold, and part of a frame may be carried already.
        """
        return self._room_bytes(owner) // 8

    def take_back(self, lease: PooledLease) -> None:
        """The last holder has released the lease."""
        size, owner = len(lease.view), lease.owner
        self._lent.discard(lease)
        self.lent_bytes -= size
        self._lent_to[owner] -= size
        if not self._lent_to[owner]:
            del self._lent_to[owner]
        if self.lent_bytes + self._idle_bytes + size <= self._pool_bytes:
            self._idle[size].append(lease)
            self._idle_bytes += size
        self._capped.discard(owner)
        if self._free_bytes >= self._reserve_bytes + self._classes[-1]:
            self._capped.clear()
        self._wake()

    def relieve(self, now: float) -> None:
        """Take memory back from the slowest frames while connections wait. Call it as long as one waits.

        A device beyond its share comes first, then the frame that grows least; last those that wait themselves.
        """
        if not self._waiting or now < self._relieved_s + RELIEF_S:
            return
        self._relieved_s = now
        slow = [each for each in self._lent if each.is_slow]
        slow.sort(key=lambda each: each.rank(self._lent_to[each.owner] > self._share_bytes))
        for each in slow:
            # To one that has its share, only memory of its own device is of use.
            if each.is_slow and (self._is_awaited or (each.owner in self._capped and each.owner in self._waiting)):
                self.reclaims += 1
                each.reclaim()

    def copied(self, count: int) -> None:
        """`count` bytes outside of the leases await the disk."""
        self.copied_bytes += count
        self.is_full = self.copied_bytes >= self._copied_bytes_max

    def copies_written(self, count: int) -> None:
        """`count` of the copied bytes are written."""
        was_full = self.is_full
        self.copied_bytes -= count
        self.is_full = self.copied_bytes >= self._copied_bytes_max
        if was_full and not self.is_full:
            # Wake all of them, in order: one that waited for this alone may stand behind one that needs a lease.
            for waiter in [each for queue in self._waiting.values() for each in queue]:
                if waiter in self._owners:
                    self.stop_waiting(waiter)
                    waiter()

    def when_free(self, waiter: Waiter, owner: Owner | None = None) -> None:
        """Call `waiter` once when memory has come back; it is the first again if it calls this from there."""
        if waiter not in self._owners:
            self.waits += 1
            self._owners[waiter] = owner
            self._waiting.setdefault(owner, OrderedDict())[waiter] = None

    def stop_waiting(self, waiter: Waiter) -> None:
        """Do not call `waiter`; harmless when it does not wait."""
        if waiter in self._owners:
            owner = self._owners.pop(waiter)
            queue = self._waiting[owner]
            del queue[waiter]
            if not queue:
                del self._waiting[owner]
                self._capped.discard(owner)

    @property
    def _free_bytes(self) -> int:
        return self._pool_bytes - self.lent_bytes

    @property
    def _is_awaited(self) -> bool:
        """Whether a device waits that has not its share yet."""
        return any(owner not in self._capped for owner in self._waiting)

    def _room_bytes(self, owner: Owner | None) -> int:
        """How much more may be lent to a device: the rest of its share, or all but the reserve while nobody waits.

        Nothing is lent to connections before they are admitted, so what has no owner is no device's.
        """
        if owner is None:
            return self._free_bytes
        share = self._share_bytes - self._lent_to[owner]
        others_wait = len(self._waiting) > (owner in self._waiting)
        return min(self._free_bytes, max(share, 0 if others_wait else self._free_bytes - self._reserve_bytes))

    def _wake(self) -> None:
        """Call waiters, device by device, until one finds too little."""
        while (owner := next((each for each in self._waiting if each not in self._capped), _NOBODY)) is not _NOBODY:
            waiter = next(iter(self._waiting[owner]))
            self.stop_waiting(waiter)
            waiter()
            queue = self._waiting.get(owner)
            if queue is None:
                continue
            if waiter not in queue:
                self._waiting.move_to_end(owner)
                continue
            # There was not enough for it: it stays the first, or smaller ones would take what comes back for ever.
            queue.move_to_end(waiter, last=False)
            self._waiting.move_to_end(owner, last=False)
            if owner not in self._capped:
                return

    def _drop_idle(self, needed_bytes: int) -> None:
        """Idle pieces of other sizes make room."""
        for size, idle in self._idle.items():
            while idle and self._free_bytes - self._idle_bytes < needed_bytes:
                idle.pop()
                self._idle_bytes -= size
