"""The bounded pool of receive memory: one shared piece for small input, leases for large frames under way."""

from collections import deque
from collections.abc import Callable

from protocol.frame_buffer import Lease

SHARED_BYTES = 1024 * 1024
"""What one read takes at most where no large frame is under way: a thousand small chunks at once, and no more than a
core's second-level cache. With 512 KiB chunks of 1 KiB came in 0.9 times as fast, with 2 MiB 0.8 times."""

CLASS_BYTES = (16 * 1024, 64 * 1024, 256 * 1024, 512 * 1024, 1024 * 1024)
"""Sizes of leases: a slow device amid a small frame must not hold memory for a large one."""

SLACK_BYTES = 4096
"""On top of each class, so that a power of two of data fits together with its prefixes and headers."""


class PooledLease:
    """One piece of the pool. Only the event loop may touch it, except for its memory."""

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


class Charge:
    """Received data that waits to be written, in `lease` or else in memory of its own, which the pool then counts.

    `written` is told how many bytes it was once the last holder has released it.
    """

    __slots__ = ("_count", "_holders", "_lease", "_pool", "_written", "view")

    def __init__(self, pool: "ReceivePool", count: int, lease: Lease | None, written: Callable[[int], None]) -> None:
        self._pool = pool
        self._count = count
        self._lease = lease
        self._written = written
        self._holders = 1
        self.view = memoryview(b"") if lease is None else lease.view

    def retain(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if self._holders:
            return
        if self._lease is not None:
            self._lease.release()
        else:
            self._pool.refund(self._count)
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
        self._waiting: deque[Callable[[], None]] = deque()
        self._charged_bytes_max = pool_bytes
        self.charged_bytes = 0
        self.lent_bytes = 0
        self.waits = 0
        self.is_short = False
        """Nothing was left to lend when one asked last who cannot do without, and nothing has come back since."""

    def lease(self, size_bytes: int) -> PooledLease | None:
        """Memory of `size_bytes` or more, or the largest piece there is; None when nothing is left."""
        lease = self._find(size_bytes)
        self.is_short = lease is None
        return lease

    def try_lease(self, size_bytes: int) -> PooledLease | None:
        """As `lease`, for who can do without: nothing while somebody waits, or what comes back would go to others."""
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

    def charge(self, count: int, lease: Lease | None, written: Callable[[int], None]) -> Charge:
        """`count` bytes wait to be written until the charge is released, `lease` with it; then `written` is told."""
        if lease is None:
            self.charged_bytes += count
        return Charge(self, count, lease, written)

    def refund(self, count: int) -> None:
        """Charged data was written."""
        was_full = self.is_full
        self.charged_bytes -= count
        if was_full and not self.is_full:
            # All of them, in order: who waited for this alone may stand behind one for whom there is nothing to lend.
            for _ in range(len(self._waiting)):
                if self._waiting:
                    self._waiting.popleft()()

    @property
    def is_full(self) -> bool:
        """As much copied data waits to be written as may: nobody should receive more."""
        return self.charged_bytes >= self._charged_bytes_max

    def _wake(self) -> None:
        while self._waiting:
            left = len(self._waiting) - 1
            self._waiting.popleft()()
            if len(self._waiting) > left:
                # There was not enough for it: it stays the first, or smaller ones would take what comes back for ever.
                self._waiting.rotate(1)
                return

    def when_free(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once when memory came back. If that is too little it calls this again, and stays the first."""
        self.waits += 1
        self._waiting.append(waiter)

    def _drop_idle(self, needed_bytes: int) -> None:
        """Idle pieces of other sizes make room."""
        for size, idle in self._idle.items():
            while idle and self._left_bytes < needed_bytes:
                idle.pop()
                self._left_bytes += size
