"""The bounded pool of receive memory: one shared piece for small input, leases for large frames under way."""

from collections import OrderedDict
from collections.abc import Callable

from protocol.frame_buffer import Lease

SHARED_BYTES = 1024 * 1024
"""The most that one read takes while no large frame is under way: a thousand small chunks at once, and no more than a
core's second-level cache. With 512 KiB, chunks of 1 KiB arrived at 0.9 of the rate, with 2 MiB at 0.8."""

CLASS_BYTES = (16 * 1024, 64 * 1024, 256 * 1024, 512 * 1024, 1024 * 1024)
"""Sizes of leases: a slow device in the middle of a small frame must not hold memory for a large one."""

SLACK_BYTES = 4096
"""On top of each class, so that a power of two of data fits together with its prefixes and headers."""

_NO_MEMORY = memoryview(b"")


class PooledLease:
    """One piece of the pool. Only its memory may be used outside of the event loop."""

    __slots__ = ("_holders", "_pool", "view")

    def __init__(self, pool: "ReceivePool", size_bytes: int) -> None:
        self._pool = pool
        self._holders = 0
        self.view = memoryview(bytearray(size_bytes))

    def retain(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
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
    """Lends at most `pool_bytes`, the largest piece being for a frame of `frame_bytes_max`."""

    def __init__(self, pool_bytes: int, frame_bytes_max: int) -> None:
        self.shared = memoryview(bytearray(max(SHARED_BYTES, SLACK_BYTES)))
        largest = max(frame_bytes_max, CLASS_BYTES[-1])
        classes = {each for each in CLASS_BYTES if each < largest} | {largest}
        self._classes = sorted(each + SLACK_BYTES for each in classes)
        self._idle: dict[int, list[PooledLease]] = {size: [] for size in self._classes}
        self._left_bytes = max(pool_bytes, self._classes[-1])
        self._waiting: OrderedDict[Callable[[], None], None] = OrderedDict()
        self._copied_bytes_max = pool_bytes
        self.copied_bytes = 0
        """Data outside of the leases that awaits the disk."""
        self.lent_bytes = 0
        self.waits = 0
        self.is_full = False
        """As much copied data awaits the disk as is allowed: no connection should receive more."""
        self.is_short = False
        """The last `lease` found nothing left, and nothing has come back since."""

    def lease(self, size_bytes: int) -> PooledLease | None:
        """Memory of `size_bytes` or more, or the largest piece there is; None when too little is left."""
        lease = self._find(size_bytes)
        self.is_short = lease is None
        return lease

    def try_lease(self, size_bytes: int) -> PooledLease | None:
        """As `lease`, for a caller that can do without: nothing while others wait, since what comes back is theirs."""
        return None if self._waiting else self._find(size_bytes)

    def _find(self, size_bytes: int) -> PooledLease | None:
        size = next((each for each in self._classes if each >= size_bytes), self._classes[-1])
        idle = self._idle[size]
        if idle:
            lease = idle.pop()
        else:
            if self._left_bytes < size:
                self._drop_idle(size)
            if self._left_bytes < size:
                return None
            self._left_bytes -= size
            lease = PooledLease(self, size)
        self.lent_bytes += size
        lease.retain()
        return lease

    def take_back(self, lease: PooledLease) -> None:
        """The last holder has released the lease."""
        size = len(lease.view)
        self.lent_bytes -= size
        self._idle[size].append(lease)
        self.is_short = False
        self._wake()

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
            for _ in range(len(self._waiting)):
                if self._waiting:
                    self._wake_first()

    def when_free(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once when memory has come back; it is the first again if it calls this from there."""
        if waiter not in self._waiting:
            self.waits += 1
            self._waiting[waiter] = None

    def stop_waiting(self, waiter: Callable[[], None]) -> None:
        """Do not call `waiter`; harmless when it does not wait."""
        self._waiting.pop(waiter, None)

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._wake_first()
            if waiter in self._waiting:
                # There was not enough for it: it stays the first, or smaller ones would take what comes back for ever.
                self._waiting.move_to_end(waiter, last=False)
                return

    def _wake_first(self) -> Callable[[], None]:
        waiter, _ = self._waiting.popitem(last=False)
        waiter()
        return waiter

    def _drop_idle(self, needed_bytes: int) -> None:
        """Idle pieces of other sizes make room."""
        for size, idle in self._idle.items():
            while idle and self._left_bytes < needed_bytes:
                idle.pop()
                self._left_bytes += size
