"""Storage in memory. The test decides when each step happens, fails or waits.

It knows which bytes a power cut would leave. It reads a piece of memory only when its write happens.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.storage.interface import Reading
from protocol.checksum import Buffer
from protocol.ranges import DigestedRange


@dataclass(eq=False)
class HeldWrite:
    """A requested write."""

    upload_id: int
    offset: int
    pieces: Sequence[Buffer]
    done: Callable[[OSError | None], None]
    data: bytes | None = None
    error: OSError | None = None

    @property
    def is_performed(self) -> bool:
        return self.data is not None or self.error is not None


@dataclass(eq=False)
class HeldSync:
    """A requested sync, the writes that it waits for, and those that it covers."""

    ahead: list[HeldWrite]
    covers: dict[int, list[HeldWrite]]
    done: Callable[[dict[int, OSError]], None]


class HeldStorage:
    """Bytes by upload id; `written` is what a reader sees, `durable` what a power cut leaves.

    With `holds_writes` or `holds_syncs` the test calls `write_next` and `sync_next`.
    """

    def __init__(self, recorded: Callable[[int], Sequence[DigestedRange]]) -> None:
        """`recorded` gives the ranges that the catalog records as durable; they must not be written again."""
        self.recorded = recorded
        self.holds_writes = False
        self.holds_syncs = False
        self.writes: deque[HeldWrite] = deque()
        self.syncs: deque[HeldSync] = deque()
        self.written: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self.durable: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self.open_ids: set[int] = set()
        self.removed: list[int] = []
        self.remove_error: OSError | None = None
        self.read_error: OSError | None = None
        self.write_count = 0
        self._unsynced: defaultdict[int, list[HeldWrite]] = defaultdict(list)

    def content(self, upload_id: int) -> bytes:
        """The durable bytes of an upload, which must have no gap."""
        kept = self.durable.get(upload_id, {})
        return bytes(kept[offset] for offset in range(len(kept)))

    def holds(self, upload_id: int, start: int, end: int) -> bool:
        """Whether a power cut would leave all of these bytes."""
        kept = self.durable.get(upload_id, {})
        return all(offset in kept for offset in range(start, end))

    def write(
        self,
        upload_id: int,
        offset: int,
        pieces: Sequence[Buffer],
        durable_bytes: int,
        done: Callable[[OSError | None], None],
    ) -> None:
        assert durable_bytes == 0 or durable_bytes - 1 in self.durable[upload_id], "these bytes were never made durable"
        write = HeldWrite(upload_id, offset, pieces, done)
        self.write_count += 1
        self.open_ids.add(upload_id)
        self.writes.append(write)
        self._unsynced[upload_id].append(write)
        if not self.holds_writes:
            asyncio.get_running_loop().call_soon(self.write_next)

    def sync(self, upload_ids: Sequence[int], done: Callable[[dict[int, OSError]], None]) -> None:
        covers = {each: self._unsynced.pop(each, []) for each in upload_ids}
        self.syncs.append(HeldSync(list(self.writes), covers, done))
        if not self.holds_syncs:
            asyncio.get_running_loop().call_soon(self.sync_next)

    def write_next(self, error: OSError | None = None) -> None:
        """Do the oldest write, or make it fail, and report the result."""
        if self.writes:
            write = self.writes.popleft()
            self._perform(write, error)
            write.done(write.error)

    def break_write(self, error: OSError) -> None:
        """Make the newest write fail; the failure is reported later."""
        self._perform(self.writes[-1], error)

    def sync_next(self, error: OSError | None = None, upload_id: int | None = None) -> None:
        """Do the oldest sync, or make it fail for one of its uploads (by default for all), and report the result."""
        if not self.syncs:
            return
        sync = self.syncs.popleft()
        for write in sync.ahead:
            self._perform(write, None)
        failed: dict[int, OSError] = {}
        for each, writes in sync.covers.items():
            errors = [write.error for write in writes if write.error is not None]
            if error is not None and upload_id in (None, each):
                failed[each] = error
            elif errors:
                failed[each] = errors[0]
            else:
                for write in writes:
                    self.durable[each] |= _by_offset(write)
        sync.done(failed)

    def release(self, upload_id: int) -> None:
        self._unsynced.pop(upload_id, None)
        self.open_ids.discard(upload_id)

    async def remove(self, upload_id: int) -> int:
        self.release(upload_id)
        if not self.holds_writes:
            # Earlier writes come first.
            await asyncio.sleep(0)
        if self.remove_error is not None:
            raise self.remove_error
        self.removed.append(upload_id)
        self.durable.pop(upload_id, None)
        return len(self.written.pop(upload_id, {}))

    async def open(self, upload_id: int) -> Reading:
        if self.read_error is not None:
            raise self.read_error
        if upload_id not in self.written:
            raise FileNotFoundError(upload_id)
        kept = self.written[upload_id]
        return _MemoryReading(bytes(kept[offset] for offset in range(len(kept))))

    def _perform(self, write: HeldWrite, error: OSError | None) -> None:
        if write.is_performed:
            return
        if error is not None:
            write.error = error
            return
        write.data = b"".join(bytes(piece) for piece in write.pieces)
        assert not self._is_recorded(write), "acknowledged bytes must never be rewritten"
        self.written[write.upload_id] |= _by_offset(write)

    def _is_recorded(self, write: HeldWrite) -> bool:
        end = write.offset + len(write.data or b"")
        return any(each.start < end and write.offset < each.end for each in self.recorded(write.upload_id))


def _by_offset(write: HeldWrite) -> dict[int, int]:
    return dict(enumerate(write.data or b"", write.offset))


@dataclass(frozen=True, slots=True)
class _MemoryReading:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]

    async def close(self) -> None:
        pass
