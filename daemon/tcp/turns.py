"""Turns on the event loop: each device gets its share of time, whatever its number of connections. PROTOCOL.md §11.3.

A device that takes little is read at once. One that has used up its turn waits in a queue of devices. Between two turns
the loop looks for other input.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

TURN_S = 0.002
"""Time of one turn: enough to read 2 MiB of large chunks, too little for others to notice."""

REFILL = 1 / 32
"""A device regains this part of the time that passes. One that sends a small chunk now and then never waits; one that
takes more of the loop than this waits for its turns, though no longer than others need for theirs."""

ShareKey = tuple[str, ...]
"""A device's tenant and name; before it is admitted the source of its connection alone."""


UNWRITTEN_BYTES_MAX = 16 * 1024 * 1024
"""Stop reading all connections of a device once this many of its bytes await the disk: twice what one connection may
have, so that two of them keep the disk busy."""

UNACKNOWLEDGED_BYTES_MAX = 32 * 1024 * 1024
"""Stop reading all connections of a device once this many of its bytes await their ACK: two windows of the default
size. Each sync takes as long as its bytes, and everybody waits for it; fifty windows would take a second."""


class Share:
    """What the connections of one device have in common: their turn, and room for bytes that await the disk.

    Times are monotonic seconds.
    """

    __slots__ = (
        "_blocked",
        "_since_s",
        "is_queued",
        "key",
        "members",
        "unacknowledged_bytes",
        "unwritten_bytes",
        "used_s",
        "waiting",
    )

    def __init__(self, key: ShareKey) -> None:
        self.key = key
        self.members = 0
        self.used_s = 0.0
        self.is_queued = False
        self.waiting: deque[Callable[[], None]] | None = None
        """What to run in the device's turns; None for the many that never wait."""
        self._since_s = 0.0
        self._blocked: OrderedDict[Callable[[], None], None] | None = None
        self.unwritten_bytes = 0
        self.unacknowledged_bytes = 0

    @property
    def is_full(self) -> bool:
        """As many bytes of the device await the disk, or their ACK, as may."""
        return self.unwritten_bytes >= UNWRITTEN_BYTES_MAX or self.unacknowledged_bytes >= UNACKNOWLEDGED_BYTES_MAX

    def when_written(self, run: Callable[[], None]) -> None:
        """Run something once the share is not full any more."""
        if self._blocked is None:
            self._blocked = OrderedDict()
        self._blocked[run] = None

    def stop_waiting(self, run: Callable[[], None]) -> None:
        """Do not run it; harmless if it does not wait."""
        if self._blocked is not None:
            self._blocked.pop(run, None)

    def written(self, count: int) -> None:
        """`count` bytes are written. If there is room now, the first that waits for it runs."""
        self.unwritten_bytes -= count
        self._wake()

    def acknowledged(self, count: int) -> None:
        """`count` bytes more await their ACK; below 0: that many fewer."""
        self.unacknowledged_bytes += count
        if count < 0:
            self._wake()

    def _wake(self) -> None:
        while self._blocked and not self.is_full:
            self._blocked.popitem(last=False)[0]()
            if self.unwritten_bytes or self.unacknowledged_bytes:
                # The next comes with the next write or ACK: one alone may fill the room.
                return

    @property
    def is_spent(self) -> bool:
        """The device must wait for its next turn."""
        return self.used_s >= TURN_S

    def spend(self, began_s: float, now_s: float) -> None:
        """The device used the loop from `began_s` to `now_s`."""
        self.used_s = max(self.used_s - (began_s - self._since_s) * REFILL, 0.0) + now_s - began_s
        self._since_s = now_s

    def take_turn(self) -> None:
        """Run what waits now, until the turn is used up."""
        self.used_s = max(self.used_s - TURN_S, 0.0)
        waiting = self.waiting
        if waiting is None:
            return
        for _ in range(len(waiting)):
            if self.is_spent:
                return
            waiting.popleft()()
        if not waiting:
            self.waiting = None


class Turns:
    """The queue of devices that wait for their turn, and the shares of all devices that are connected."""

    def __init__(self) -> None:
        self._shares: dict[ShareKey, Share] = {}
        self._queue: deque[Share] = deque()
        self._is_due = False

    def join(self, key: ShareKey) -> Share:
        """The share of a device, for one more connection."""
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(key)
        share.members += 1
        return share

    def leave(self, share: Share) -> None:
        """One connection fewer uses the share."""
        share.members -= 1
        if not share.members:
            del self._shares[share.key]

    def wait(self, share: Share, run: Callable[[], None]) -> None:
        """Run something in the device's next turn."""
        if share.waiting is None:
            share.waiting = deque()
        share.waiting.append(run)
        self._enqueue(share)

    def _enqueue(self, share: Share) -> None:
        if not share.is_queued:
            share.is_queued = True
            self._queue.append(share)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Give one device its turn. The loop looks for input before the next one."""
        share = self._queue.popleft()
        share.take_turn()
        share.is_queued = self._is_due = False
        if share.waiting:
            self._enqueue(share)
        elif self._queue:
            self._enqueue(self._queue[0])
