"""Whether a connection is read: only while no reason speaks against it. PROTOCOL.md §11."""

import math
from enum import IntEnum
from typing import Protocol

from daemon.tcp.receive_pool import PendingWrite, ReceivePool
from daemon.tcp.turns import Share, Turns
from protocol.frame_buffer import Lease, Owner
from protocol.server import ServerConnection

RUN_OVERHEAD_BYTES = 1024
"""Charged for each run of chunks on top of its bytes: its objects take as much while it awaits the disk. A run may be a
single byte, and then they are what fills the memory."""

UNWRITTEN_BYTES_MAX = 8 * 1024 * 1024
"""Stop reading a connection once this many of its bytes await the disk. What other devices sent waits behind them for
some milliseconds, and the pool keeps memory to lend."""

CROWDED_BYTES = 4096
"""Read at once while memory is scarce: ten thousand connections then add 40 MB at most."""

STALLED_S = 30.0
"""A device that takes no answer for this long does not read: its acknowledgements have nowhere to go."""


class PauseReason(IntEnum):
    """Why a connection is not read. Each is one bit of `Flow.reasons`."""

    ANSWER = 1
    """The device's request needs an answer before its next frame can be judged."""
    TURN = 2
    """Input is left over, or the device has used up its turn."""
    MEMORY = 4
    """The pool has nothing to lend, or copied data fills it."""
    DISK = 8
    """UNWRITTEN_BYTES_MAX of its bytes, or as many of its device as may, await the disk."""
    PEER = 16
    """The device does not read its answers."""


_NO_TURN = PauseReason.TURN | PauseReason.DISK | PauseReason.PEER
"""While one of these holds, a connection's input does not go on, and it asks for no turn."""


class Input(Protocol):
    """The connection whose reading is controlled."""

    def changed(self) -> None:
        """A reason is gone: look again."""
        ...

    def go_on(self) -> None:
        """Take the input that waited for memory or its turn."""
        ...


class Transport(Protocol):
    """What can be read, or not."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool: ...


class Flow:
    """Back-pressure of one connection. `reasons` is a set of PauseReason; the transport is read only while it is empty.

    `share` belongs to the device: all its connections use it. Every byte counts as unwritten from `hold` until its last
    holder releases it.
    """

    __slots__ = (
        "_input",
        "_is_paused",
        "_pool",
        "_stalled_since_s",
        "_transport",
        "_turns",
        "_unacknowledged_bytes",
        "_unwritten_bytes",
        "reasons",
        "share",
    )

    def __init__(self, pool: ReceivePool, turns: Turns, share: Share) -> None:
        self._pool = pool
        self._turns = turns
        self.share = share
        self._input: Input | None = None
        self._transport: Transport | None = None
        self._is_paused = False
        self._stalled_since_s: float | None = None
        self._unwritten_bytes = 0
        self._unacknowledged_bytes = 0
        self.reasons = 0

    def begin(self, transport: Transport, input_: Input) -> None:
        """Pause and resume `transport`, which is being read, for `input_`."""
        self._transport = transport
        self._input = input_

    def buffer(self, protocol: ServerConnection) -> memoryview:
        """Memory to receive the next bytes into: little of it while memory is scarce."""
        buffer = protocol.get_buffer()
        pool = self._pool
        # Other connections become readable while too much awaits the disk: each reads a little, and then pauses.
        # With nothing left to lend, what is read beyond the pool's memory may have to stay with its connection.
        if pool.is_full:
            return buffer[:CROWDED_BYTES]
        if not protocol.has_lease:
            return buffer[: max(CROWDED_BYTES, pool.readable_bytes(protocol.owner))]
        return buffer

    def hold(self, count: int, lease: Lease | None) -> Lease:
        """Count a run of `count` bytes as unwritten until the lease that is returned, which wraps `lease`, ends."""
        count += RUN_OVERHEAD_BYTES
        self._unwritten_bytes += count
        self.share.unwritten_bytes += count
        return PendingWrite(self._pool, count, lease, self._written)

    def stall(self, now: float) -> None:
        """The device reads no answers since `now`; call `update` afterwards."""
        self._stalled_since_s = now

    def unstall(self) -> None:
        """The device reads again; call `update` afterwards."""
        self._stalled_since_s = None

    @property
    def deadline(self) -> float:
        """When the device will have read nothing for too long, in monotonic seconds; infinite while it reads."""
        return math.inf if self._stalled_since_s is None else self._stalled_since_s + STALLED_S

    def update(self, protocol: ServerConnection) -> None:
        """Find the reasons that hold now, and pause or resume the transport when the first comes or the last goes."""
        before, pool = self.reasons, self._pool
        # A turn that was asked for comes.
        reasons = before & PauseReason.TURN
        if self._stalled_since_s is not None:
            reasons |= PauseReason.PEER
        if protocol.is_held:
            reasons |= PauseReason.ANSWER
        self._count(protocol.streams.unacknowledged_bytes)
        if self._unwritten_bytes >= UNWRITTEN_BYTES_MAX or self.share.is_full:
            reasons |= PauseReason.DISK
        is_starved = protocol.is_starved
        # Memory may have come back before it was waited for: where nothing is lent, nothing will come.
        if pool.is_full or (is_starved and pool.lent_bytes):
            reasons |= PauseReason.MEMORY
        elif (is_starved or protocol.has_more or self.share.is_spent) and not reasons & _NO_TURN:
            reasons |= PauseReason.TURN
            self._turns.wait(self.share, self._turn_came)
        if reasons != before or (reasons != 0) is not self._is_paused:
            self._apply(reasons, protocol.owner)

    def _count(self, unacknowledged_bytes: int) -> None:
        """So many bytes of the connection await their ACK now."""
        more, self._unacknowledged_bytes = unacknowledged_bytes - self._unacknowledged_bytes, unacknowledged_bytes
        if more:
            # It is looked at already, so that the room may go to another.
            self.share.stop_waiting(self._look_again)
            self.share.acknowledged(more)

    def release(self) -> None:
        """Read whatever comes, from now on: it will be discarded."""
        self._apply(0)
        self._input = None

    def close(self) -> None:
        """The transport is gone."""
        self._transport = self._input = None
        self._count(0)
        self._pool.stop_waiting(self._memory_came)
        self.share.stop_waiting(self._look_again)

    def _apply(self, reasons: int, owner: Owner | None = None) -> None:
        changes, self.reasons = reasons ^ self.reasons, reasons
        if changes & PauseReason.MEMORY:
            if reasons & PauseReason.MEMORY:
                self._pool.when_free(self._memory_came, owner)
            else:
                self._pool.stop_waiting(self._memory_came)
        if reasons & PauseReason.DISK and self._unwritten_bytes < UNWRITTEN_BYTES_MAX:
            self.share.when_written(self._look_again)
        transport, is_paused = self._transport, reasons != 0
        if is_paused is self._is_paused or transport is None or transport.is_closing():
            return
        self._is_paused = is_paused
        if is_paused:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _written(self, count: int) -> None:
        self._unwritten_bytes -= count
        self.share.written(count)
        if self.reasons & PauseReason.DISK and self._unwritten_bytes < UNWRITTEN_BYTES_MAX and not self.share.is_full:
            self._look_again()
        elif self.reasons & PauseReason.MEMORY and not self._unwritten_bytes:
            # The lease that it receives into is its own again, and may be enough.
            self._take_input()

    def _look_again(self) -> None:
        if self._input is not None:
            self._input.changed()

    def _turn_came(self) -> None:
        self._go_on(PauseReason.TURN)

    def _memory_came(self) -> None:
        self._go_on(PauseReason.MEMORY)

    def _go_on(self, awaited: PauseReason) -> None:
        self.reasons &= ~awaited
        self._take_input()

    def _take_input(self) -> None:
        if self._input is None:
            return
        if self.reasons & _NO_TURN:
            self._input.changed()
        else:
            self._input.go_on()
