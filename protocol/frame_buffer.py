"""Bounded memory that bytes are received into: shared for small input, leased in the middle of a large frame.

A lease grows with what has arrived, not with what a frame announces. Only a connection whose frames have come quickly
gets memory for a whole frame at once, and for several.
"""

from typing import Protocol

from protocol.codec import CHUNK_FRAMES, PREFIX_BYTES
from protocol.constants import HANDSHAKE_FRAME_BYTES_MAX
from protocol.progress import Progress

CARRY_BYTES_MAX = HANDSHAKE_FRAME_BYTES_MAX
"""Part of a frame up to this size waits in memory of its own: a stranger never holds a lease, and a frame up to this
size, as every control frame is, never waits for one."""

BULK_FRAME_BYTES = 32 * 1024
"""Frames from this size on are received into leases from the start: most reads would end in the middle of one. A read
that brings this much of a frame is quick."""

BULK_FRAMES = 4
"""Frames received into one lease: enough to make one write of them, few enough to stay in the cache."""

PATIENCE_S = 2.0
"""While others wait for memory, a frame keeps its own for this long, and for twice as long after each loss."""

LOSSES_COUNTED_MAX = 6
"""So patience ends at 128 s: longer than PROTOCOL.md R11.1 lets a chunk take, whatever `keepalive_s` up to two minutes,
so the chunk of a device that keeps to it arrives in the end. Without an end, a hostile device could earn an hour."""

_HEADER_BYTES_MAX = max(layout.size for layout in CHUNK_FRAMES.values())

Owner = tuple[str, str]
"""Whose share of the pool memory counts against: tenant and device."""


class Lease(Protocol):
    """Memory lent by a pool. It goes back when every holder has released it."""

    @property
    def view(self) -> memoryview:
        """The writable memory."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether there is more than one holder."""
        ...

    def retain(self) -> None:
        """Add a holder."""
        ...

    def release(self) -> None:
        """Remove a holder."""
        ...


class Borrower(Protocol):
    """Who receives into a lease, as the pool sees it."""

    @property
    def owner(self) -> Owner | None:
        """The device, None before it is admitted."""
        ...

    @property
    def lease(self) -> Lease | None:
        """The lease that is received into."""
        ...

    @property
    def starved(self) -> bool:
        """Whether it waits for memory itself."""
        ...

    @property
    def is_slow(self) -> bool:
        """Whether its memory may be taken back when others wait."""
        ...

    @property
    def rate_bytes_per_s(self) -> float:
        """How fast the frame under way has grown between the last two looks."""
        ...

    def drop(self) -> None:
        """Give the lease back. The frame under way is lost, and its device must send it again."""
        ...


class BufferSource(Protocol):
    """Where memory to receive into comes from."""

    @property
    def shared(self) -> memoryview:
        """Memory shared by all connections: its content is lost once another connection receives."""
        ...

    def lease(self, size_bytes: int, borrower: Borrower | None = None) -> Lease | None:
        """Memory of `size_bytes`, or the largest piece of the pool, which holds any frame. None: there is none left.

        A borrower that receives into a lease moves to the new one: it releases the old one at once.
        """
        ...

    def try_lease(self, size_bytes: int, borrower: Borrower | None = None) -> Lease | None:
        """Memory for a caller that can do without and keeps what it has: None also while others wait for memory."""
        ...


class FrameBuffer:
    """The unparsed input of one connection.

    `view[begin:end]` holds it between `received` and `save`; the parser moves `begin`. At other times the memory may be
    shared with other connections: do not look at it.

    Once `drop` was called, the rest of the frame is discarded as it arrives. `lost_header` then holds its prefix and
    the chunk's header, which the parser takes when `missing_bytes` is 0.
    """

    __slots__ = (
        "_begun",
        "_carry",
        "_frame_bytes",
        "_is_quick",
        "_losses",
        "_progress",
        "_source",
        "begin",
        "end",
        "lease",
        "lost_header",
        "missing_bytes",
        "owner",
        "starved",
        "view",
    )

    def __init__(self, source: BufferSource) -> None:
        self._source = source
        self._carry = b""
        self._frame_bytes = 0
        self._begun = 0
        self._is_quick = False
        self._losses = 0
        self._progress: Progress | None = None
        self.view = source.shared
        self.lease: Lease | None = None
        self.owner: Owner | None = None
        self.begin = 0
        self.end = 0
        self.starved = False
        """A large frame is under way and the pool had nothing to lend. Stop reading until it has."""
        self.lost_header = b""
        self.missing_bytes = 0

    def writable(self, limit_bytes: int) -> memoryview:
        """Memory to receive the next bytes into, at most `limit_bytes`; never empty."""
        if self._is_quick and self._frame_bytes >= BULK_FRAME_BYTES and self.lease is None and not self._carry:
            lease = None if self.missing_bytes else self._source.try_lease(self._frame_bytes * BULK_FRAMES, self)
            if lease is not None:
                self._move_to(lease, b"")
        if self.lease is not None:
            return self.view[self.end : min(self._bulk_end(), self.end + limit_bytes)]
        self.view = self._source.shared
        carried = len(self._carry)
        self.view[:carried] = self._carry
        # Keep what is carried until bytes arrive: an event loop may ask for memory and then find nothing to read, and
        # by the time it asks again another connection has used the shared memory.
        self.begin, self.end = 0, carried
        return self.view[carried : carried + limit_bytes]

    def received(self, count: int) -> None:
        """`count` bytes were put at the front of what `writable` gave last."""
        self.end += count
        self._carry = b""
        if self.missing_bytes:
            skipped = min(count, self.missing_bytes)
            self.missing_bytes -= skipped
            self.begin += skipped
        self._begun = self.begin

    def save(self, frame_bytes: int) -> None:
        """Keep what is left until more arrives. It is the beginning of `frame_bytes` of frames.

        With nothing left, or too little to tell, give the size of the frame before: the next is most likely alike.
        """
        self._frame_bytes = frame_bytes
        if self.begin != self._begun:
            self._count_taken(self.begin - self._begun)
            self._begun = self.begin
        left, size = self.end - self.begin, len(self.view)
        if self.lease is None:
            self.starved = self._keep(self.view[self.begin : self.end])
        else:
            is_cut_off = self.end == size or (self.begin > 0 and self.begin + frame_bytes > size)
            self.starved = (is_cut_off or not left) and self._move(self.lease)

    def borrow(self, size_bytes: int) -> Lease | None:
        """A lease for other use than receiving, or the largest there is. None: the pool has none to spare."""
        return self._source.try_lease(size_bytes, self)

    def restore(self) -> None:
        """Look again at what `save` kept. Another `save` must follow."""
        if self.lease is None:
            self.view = memoryview(self._carry)
            self.begin, self.end, self._carry = 0, len(self._carry), b""
            self._begun = 0

    def look(self, now: float) -> None:
        """See how the frame under way grows, and give back memory that it does not need. Call about once a second."""
        if self.lease is None:
            return
        arrived = self.end - self.begin
        if not arrived:
            # An event loop may ask for memory in vain.
            self.close()
        elif self._progress is None:
            self._progress = Progress(arrived, now)
        elif self._progress.look(arrived, now, self.starved):
            self._is_quick = False
            # Only once, and far from what growth leaves free, so that no frame is copied to and fro.
            if arrived < len(self.view) // 8 and not self.starved:
                self._move(self.lease)

    def paused(self, now: float) -> None:
        """Reading was stopped for another reason than memory: the time until now was not the device's."""
        if self._progress is not None:
            self._progress.skip(self.end - self.begin, now)

    @property
    def is_slow(self) -> bool:
        """Part of a chunk has been under way for longer than it may be while others wait for memory."""
        progress = self._progress
        return (
            progress is not None
            and self.lease is not None
            and self._frame_bytes > CARRY_BYTES_MAX
            and _HEADER_BYTES_MAX <= self.end - self.begin < self._frame_bytes
            and progress.under_way_s >= PATIENCE_S * 2**self._losses
        )

    @property
    def rate_bytes_per_s(self) -> float:
        """How fast the frame under way has grown between the last two looks."""
        return 0.0 if self._progress is None else self._progress.rate_bytes_per_s

    def drop(self) -> None:
        """Give the memory of the frame under way back, and discard the rest of it as it arrives. See `is_slow`."""
        self.lost_header = bytes(self.view[self.begin : self.begin + _HEADER_BYTES_MAX])
        self.missing_bytes = self._frame_bytes - (self.end - self.begin)
        self._losses = min(self._losses + 1, LOSSES_COUNTED_MAX)
        self.close()

    def close(self) -> None:
        """Give back the lease, and drop what is kept."""
        lease, self.lease = self.lease, None
        self._carry = b""
        self._progress = None
        self.starved = False
        self.begin = self.end = self._begun = 0
        if lease is not None:
            lease.release()

    def _count_taken(self, count: int) -> None:
        """`count` bytes of frames were taken: learn from how they came."""
        progress, self._progress = self._progress, None
        if count >= BULK_FRAME_BYTES:
            self._is_quick = progress is None or not progress.is_slow
        if count > CARRY_BYTES_MAX:
            self._losses = 0

    def _move(self, held: Lease) -> bool:
        """Keep what is left in memory of another size, or at the front of the same. Returns whether there is none."""
        left = self.view[self.begin : self.end]
        lease = self._lend(len(left))
        if lease is not None:
            self._move_to(lease, left)
        elif len(left) <= CARRY_BYTES_MAX:
            self._carry_on(left)
        elif self.begin and not held.is_shared:
            self._move_to(held, left)
            return False
        else:
            # It keeps what it has: a copy would be memory that nobody counts.
            return True
        held.release()
        return False

    def _keep(self, left: memoryview) -> bool:
        """Keep what lies in the shared memory. Returns whether it waits for memory."""
        lease = self._lend(len(left))
        if lease is None:
            self._carry_on(left)
            return len(left) > CARRY_BYTES_MAX
        self._move_to(lease, left)
        return False

    def _lend(self, left_bytes: int) -> Lease | None:
        """Memory for what is left: for all of the frame where it comes quickly, else for about half as much again.

        Where memory is so short that it had to wait, too: many that grow would take what none of them finishes with.
        """
        frame_bytes, lend = self._frame_bytes, self._source.lease
        lease = None
        if self._is_quick or self.starved or (self.lease is None and left_bytes >= BULK_FRAME_BYTES):
            lease = lend(frame_bytes, self) if left_bytes and frame_bytes > CARRY_BYTES_MAX else None
        if lease is None and left_bytes > CARRY_BYTES_MAX:
            # A pool's pieces double at least, so all copies of a frame are together less than twice the frame.
            lease = lend(min(frame_bytes, left_bytes + left_bytes // 2), self) or lend(left_bytes + 1, self)
        if lease is not None and len(lease.view) < left_bytes:  # several frames may be more than any lease holds
            lease.release()
            return None
        return lease

    def _carry_on(self, left: memoryview) -> None:
        self._carry = bytes(left)
        # Drop the view that `restore` made: an idle connection would keep it for nothing.
        self.view, self.lease = self._source.shared, None

    def _move_to(self, lease: Lease, left: memoryview | bytes) -> None:
        view = lease.view
        view[: len(left)] = left
        self.lease, self.view = lease, view
        self._carry = b""
        self.begin = self._begun = 0
        self.end = len(left)

    def _bulk_end(self) -> int:
        """Where to stop receiving, so that the memory ends with a whole frame and no part has to be moved."""
        size = len(self.view)
        frame_bytes = max(self._frame_bytes, PREFIX_BYTES)
        whole = self.begin + (size - self.begin) // frame_bytes * frame_bytes
        return whole if whole > self.end else size
