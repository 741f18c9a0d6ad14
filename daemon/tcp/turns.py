"""Turns on the event loop: each device gets its share of time, whatever its number of connections. PROTOCOL.md §11.3.

A device that takes little is read at once. One that has used up its turn waits in a queue of devices. Between two turns
the loop looks for other input.
"""

import asyncio
from collections import deque
from collections.abc import Callable

TURN_S = 0.002
"""Time of one turn: enough to read 2 MiB of large chunks, too little for others to notice."""

REFILL = 1 / 32
"""A device regains this part of the time that passes. One that sends a small chunk now and then never waits; one that
takes more of the loop than this waits for its turns, though no longer than others need for theirs."""

ShareKey = tuple[str, ...]
"""A device's tenant and name; before it is admitted the source of its connection alone."""


class Share:
    """What the connections of one device have used of their common turn. Times are monotonic seconds."""

    __slots__ = ("_since_s", "is_queued", "key", "members", "used_s", "waiting")

    def __init__(self, key: ShareKey) -> None:
        self.key = key
        self.members = 0
        self.used_s = 0.0
        self.is_queued = False
        self.waiting: deque[Callable[[], None]] | None = None
        """What to run in the device's turns; None for the many that never wait."""
        self._since_s = 0.0

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
