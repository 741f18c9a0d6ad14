"""Bounded memory that bytes are received into: shared for small input, leased in the middle of a large frame."""

from typing import Protocol

from protocol.codec import PREFIX_BYTES
from protocol.constants import HANDSHAKE_FRAME_BYTES_MAX

CARRY_BYTES_MAX = HANDSHAKE_FRAME_BYTES_MAX
"""Part of a frame up to this size waits in memory of its own, so a stranger never holds a lease."""

BULK_FRAME_BYTES = 32 * 1024
"""Frames from this size on are received into leases from the start: most reads would end in the middle of one."""

BULK_FRAMES = 4
"""Frames received into one lease: enough to make one write of them, few enough to stay in the cache."""


class Lease(Protocol):
    """Memory lent by a pool. It goes back when every holder has released it."""

    @property
    def view(self) -> memoryview:
        """The writable memory."""
        ...

    def retain(self) -> None:
        """Add a holder."""
        ...

    def release(self) -> None:
        """Remove a holder."""
        ...


class BufferSource(Protocol):
    """Where memory to receive into comes from."""

    @property
    def shared(self) -> memoryview:
        """Memory shared by all connections: its content is lost once another connection receives."""
        ...

    def lease(self, size_bytes: int) -> Lease | None:
        """Memory of `size_bytes`, or the largest piece of the pool, which holds any frame. None: all is lent."""
        ...

    def try_lease(self, size_bytes: int) -> Lease | None:
        """Like `lease`, for a caller that can do without: also None while others wait for memory."""
        ...


class FrameBuffer:
    """The unparsed input of one connection.

    `view[begin:end]` holds it between `received` and `save`; the parser moves `begin`. At other times the memory may be
    shared with other connections: do not look at it.
    """

    __slots__ = ("_carry", "_frame_bytes", "_source", "begin", "end", "lease", "view")

    def __init__(self, source: BufferSource) -> None:
        self._source = source
        self._carry = b""
        self._frame_bytes = 0
        self.view = source.shared
        self.lease: Lease | None = None
        self.begin = 0
        self.end = 0

    @property
    def starved(self) -> bool:
        """A large frame is under way and the pool had nothing to lend. Stop reading until it has."""
        return self.lease is None and len(self._carry) > CARRY_BYTES_MAX

    def writable(self, limit_bytes: int) -> memoryview:
        """Memory to receive the next bytes into, at most `limit_bytes`; never empty."""
        if self.lease is None and not self._carry and self._frame_bytes >= BULK_FRAME_BYTES:
            lease = self._source.try_lease(self._frame_bytes * BULK_FRAMES)
            if lease is not None:
                self._move_to(lease)
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

    def save(self, frame_bytes: int) -> None:
        """Keep what is left until more arrives. It is the beginning of `frame_bytes` of frames.

        With nothing left, or too little to tell, give the size of the frame before: the next is most likely alike.
        """
        left = self.end - self.begin
        self._frame_bytes = frame_bytes
        if self.lease is not None:
            if left and self.begin + frame_bytes <= len(self.view) and self.end < len(self.view):
                return
            view, lease = self.view[self.begin : self.end], self.lease
            self.lease = None
            self._keep(view, frame_bytes)
            lease.release()
            if self.starved:  # the lease just given back may be all that the pool has
                self._keep(memoryview(self._carry), frame_bytes)
            return
        self._keep(self.view[self.begin : self.end], frame_bytes)

    def borrow(self, size_bytes: int) -> Lease | None:
        """A lease for other use than receiving, or the largest there is. None: the pool has none to spare."""
        return self._source.try_lease(size_bytes)

    def restore(self) -> None:
        """Look again at what `save` kept. Another `save` must follow."""
        if self.lease is None:
            self.view = memoryview(self._carry)
            self.begin, self.end, self._carry = 0, len(self._carry), b""

    def return_unused_lease(self) -> None:
        """Give back a lease into which nothing was received: an event loop may ask for memory in vain."""
        if self.lease is not None and self.begin == self.end:
            self.close()

    def close(self) -> None:
        """Give back the lease, and drop what is kept."""
        if self.lease is not None:
            self.lease.release()
            self.lease = None
        self._carry = b""
        self.begin = self.end = 0

    def _keep(self, left: memoryview, frame_bytes: int) -> None:
        lease = self._source.lease(frame_bytes) if left and frame_bytes > CARRY_BYTES_MAX else None
        if lease is not None and len(lease.view) < len(left):  # several frames may be more than any lease holds
            lease.release()
            lease = None
        if lease is None:
            self._carry = bytes(left)
            # Drop the view that `restore` made: an idle connection would keep it for nothing.
            self.view = self._source.shared
            return
        self._move_to(lease)
        self.view[: len(left)] = left
        self.end = len(left)
        self._carry = b""

    def _move_to(self, lease: Lease) -> None:
        self.lease = lease
        self.view = lease.view
        self.begin = self.end = 0

    def _bulk_end(self) -> int:
        """Where to stop receiving, so that the memory ends with a whole frame and no part has to be moved."""
        size = len(self.view)
        frame_bytes = max(self._frame_bytes, PREFIX_BYTES)
        whole = self.begin + (size - self.begin) // frame_bytes * frame_bytes
        return whole if whole > self.end else size
