"""Uploads on a disk and a catalog whose every step the test lets happen, fail, or wait.

The catalog's decisions are the real ones, on a database in memory; storage keeps bytes in memory, tells what of them a
power cut would leave, and never looks at a piece of memory before its write's turn has come.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from daemon.adapters.threads import Lane, Report, Work
from daemon.admission import Admission, Refusal, UploadPolicy
from daemon.catalog import uploads as rows
from daemon.catalog.connection import ConnectionLane
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Completed, Completion, OpenRequest, OpenResult, Progress, State, Upload
from daemon.catalog.sqlite import SqliteCatalog
from daemon.committer import Committer, CycleSettings
from daemon.digester import Digester
from daemon.metrics import Metrics
from daemon.storage.interface import Buffer, Reading, Space, Stored
from daemon.tasks import Tasks, background
from daemon.upload import LiveUpload
from daemon.uploads import Uploads
from protocol import frames
from protocol.constants import ChecksumKind
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived
from protocol.frame_buffer import Lease
from protocol.ranges import DigestedRange, Span
from tests.daemon.catalog.samples import REQUEST, memory_catalog
from tests.daemon.doubles import CapturedLog, FakeClock

Item = TypeVar("Item")
Result = TypeVar("Result")

TURNS = 40
"""Of the event loop: more than any chain of steps takes that waits for nothing but the loop."""

TURNS_MAX = 20_000
"""What a test waits for must be the case by then: only the loop's own steps are waited for."""

NEVER_S = 3600.0
"""A cycle that is cut by time alone is not cut within a test."""

ROOMY = UploadPolicy(
    ranges_max=4, quota_bytes_per_device=0, size_max_bytes=0, disk_free_min_bytes=1000, tombstone_s=3600
)


async def turns(count: int = TURNS) -> None:
    """Let everything happen that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let things happen until `condition` holds."""
    for _ in range(TURNS_MAX):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


# Threads.


class LoopLane(Generic[Item]):
    """Works on the event loop, in its next turn."""

    def __init__(self, work: Work[Item]) -> None:
        self._work = work
        self._items: list[Item] = []

    def put(self, item: Item) -> None:
        self._items.append(item)
        if len(self._items) == 1:
            asyncio.get_running_loop().call_soon(self._run)

    async def close(self) -> None:
        await turns(2)

    def _run(self) -> None:
        items, self._items = self._items, []
        report: Report = self._work(items)
        report()


class LoopThreads:
    """Threads of which the loop is the only one."""

    def lane(self, name: str, work: Work[Item]) -> Lane[Item]:
        return LoopLane(work)


# Storage.


@dataclass(eq=False)
class HeldWrite:
    """A write that was asked for."""

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
    """A sync that was asked for, the writes that it waits for, and those that it covers."""

    ahead: list[HeldWrite]
    covers: dict[int, list[HeldWrite]]
    done: Callable[[dict[int, OSError]], None]


class FakeStorage:
    """Bytes by upload id; `written` is what a reader sees, `durable` what a power cut leaves.

    With `holds_writes` or `holds_syncs` the test calls `write_next` and `sync_next`.
    """

    shards = 1

    def __init__(self, recorded: Callable[[int], Sequence[DigestedRange]]) -> None:
        """`recorded` tells what the catalog knows to be durable, which nobody may write to again."""
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
        assert durable_bytes == 0 or durable_bytes - 1 in self.durable[upload_id], "this was never made durable"
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
        """Do the oldest write, or let it fail, and report it."""
        if self.writes:
            write = self.writes.popleft()
            self._perform(write, error)
            write.done(write.error)

    def break_write(self, error: OSError) -> None:
        """Let the newest write fail, which is reported later."""
        self._perform(self.writes[-1], error)

    def sync_next(self, error: OSError | None = None, upload_id: int | None = None) -> None:
        """Do the oldest sync, or let it fail for one of its uploads (for all, if none is named), and report it."""
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
        if self.remove_error is not None:
            raise self.remove_error
        self.removed.append(upload_id)
        self.durable.pop(upload_id, None)
        return len(self.written.pop(upload_id, {}))

    async def open(self, upload_id: int) -> Reading:
        if self.read_error is not None:
            raise self.read_error
        kept = self.written[upload_id]
        return _FakeReading(bytes(kept[offset] for offset in range(len(kept))))

    def read_cached(self, upload_id: int, offset: int, count: int) -> bytearray | None:
        raise AssertionError("receiving reads nothing back from memory")

    async def read_once(self, upload_id: int, offset: int, count: int) -> bytes:
        raise AssertionError("receiving reads nothing in one trip")

    async def space(self) -> Space:
        raise AssertionError("receiving measures nothing")

    async def stored(self, shard: int) -> tuple[Stored, ...]:
        raise AssertionError("receiving lists nothing")

    async def modified_ms(self, shard: int, name: str) -> int | None:
        raise AssertionError("receiving asks for no times")

    async def quarantine(self, shard: int, name: str) -> None:
        raise AssertionError("receiving moves nothing")

    async def close(self) -> None:
        raise AssertionError("receiving closes nothing")

    def _perform(self, write: HeldWrite, error: OSError | None) -> None:
        if write.is_performed:
            return
        if error is not None:
            write.error = error
            return
        write.data = b"".join(bytes(piece) for piece in write.pieces)
        assert not self._is_recorded(write), "bytes that are promised are never rewritten"
        self.written[write.upload_id] |= _by_offset(write)

    def _is_recorded(self, write: HeldWrite) -> bool:
        end = write.offset + len(write.data or b"")
        return any(each.start < end and write.offset < each.end for each in self.recorded(write.upload_id))


def _by_offset(write: HeldWrite) -> dict[int, int]:
    return dict(enumerate(write.data or b"", write.offset))


@dataclass(frozen=True, slots=True)
class _FakeReading:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]

    def send(self, socket_fd: int, offset: int, count: int) -> AsyncGenerator[int, None]:
        raise AssertionError("receiving sends nothing")

    async def close(self) -> None:
        pass


# The catalog.


class Gate:
    """Where calls of one operation wait, pass or fail."""

    def __init__(self) -> None:
        self.asked = 0
        self.before = asyncio.Event()
        self.after = asyncio.Event()
        self.before.set()
        self.after.set()
        self.failures: deque[CatalogFailed] = deque()
        """Each is raised once, nothing having been done."""
        self.failures_after: deque[CatalogFailed] = deque()
        """Each is raised once though the operation was done: the answer was lost."""


class ControlledCatalog(SqliteCatalog):
    """A real catalog in memory, behind one gate for each operation."""

    def __init__(self) -> None:
        self._connection = memory_catalog()
        lane = ConnectionLane(LoopThreads(), "catalog", Path("nowhere"), lambda: self._connection, "BEGIN")
        super().__init__(lane, lane)
        self._lane = lane
        self.gates: defaultdict[str, Gate] = defaultdict(Gate)

    def at_once(self, upload_id: int) -> Upload | None:
        """What is recorded of an upload at this moment."""
        return rows.get(self._connection, upload_id)

    def recorded(self, upload_id: int) -> Sequence[DigestedRange]:
        """The ranges that are recorded of an upload at this moment."""
        upload = self.at_once(upload_id)
        return () if upload is None else upload.ranges

    async def open(self, request: OpenRequest) -> OpenResult:
        await self._enter("open")
        return await self._leave("open", await super().open(request))

    async def commit(self, progress: Sequence[Progress]) -> Sequence[bool]:
        await self._enter("commit")
        return await self._leave("commit", await super().commit(progress))

    async def complete(self, completion: Completion) -> Completed | None:
        await self._enter("complete")
        return await self._leave("complete", await super().complete(completion))

    async def end(self, upload_id: int, state: State, now_ms: int, epoch: int | None = None) -> Upload | None:
        await self._enter("end")
        return await self._leave("end", await super().end(upload_id, state, now_ms, epoch))

    async def find(self, tenant: str, device: str, name: str) -> Upload | None:
        await self._enter("find")
        return await self._leave("find", await super().find(tenant, device, name))

    async def usage(self, tenant: str, device: str) -> int:
        await self._enter("usage")
        return await self._leave("usage", await super().usage(tenant, device))

    async def close(self) -> None:
        await self._lane.close()
        self._connection.close()

    async def _enter(self, operation: str) -> None:
        gate = self.gates[operation]
        gate.asked += 1
        await gate.before.wait()
        if gate.failures:
            raise gate.failures.popleft()

    async def _leave(self, operation: str, result: Result) -> Result:
        gate = self.gates[operation]
        await gate.after.wait()
        if gate.failures_after:
            raise gate.failures_after.popleft()
        return result


# The device's side.


class CountedLease:
    """Memory that a chunk lies in; it reads as zeros once it was given back."""

    def __init__(self, data: bytes) -> None:
        self._memory = bytearray(data)
        self.holders = 1

    @property
    def view(self) -> memoryview:
        return memoryview(self._memory)

    def retain(self) -> None:
        assert self.holders > 0, "memory is retained after it was given back"
        self.holders += 1

    def release(self) -> None:
        assert self.holders > 0, "memory is given back twice"
        self.holders -= 1
        if not self.holders:
            self._memory[:] = bytes(len(self._memory))


@dataclass(frozen=True, slots=True)
class Ack:
    """What a stream was told by `acknowledged`."""

    next_expected_byte: int
    beyond: tuple[Span, ...]
    settled_bytes: int


@dataclass(frozen=True, slots=True)
class Nack:
    """What a stream was told by `refused`."""

    refused: Span
    code: ErrorCode
    settled_bytes: int


@dataclass(eq=False)
class Stream:
    """The listener of an upload, and what it heard."""

    acks: list[Ack] = field(default_factory=list)
    nacks: list[Nack] = field(default_factory=list)
    waits_ms: list[int] = field(default_factory=list)
    completed: Upload | None = None
    aborted_id: int | None = None
    error: ErrorCode | None = None
    detail: str = ""
    heard: list[str] = field(default_factory=list)
    """The names of all of it, in order."""

    @property
    def is_over(self) -> bool:
        return self.heard[-1:] in (["finished"], ["aborted"], ["failed"])

    @property
    def acknowledged_byte(self) -> int:
        """The last N that was told."""
        return self.acks[-1].next_expected_byte if self.acks else 0

    @property
    def settled_bytes(self) -> int:
        return sum(ack.settled_bytes for ack in self.acks) + sum(nack.settled_bytes for nack in self.nacks)

    def acknowledged(self, next_expected_byte: int, beyond: Sequence[Span], settled_bytes: int) -> None:
        self._hear("acknowledged")
        self.acks.append(Ack(next_expected_byte, tuple(beyond), settled_bytes))

    def refused(self, refused: Span, code: ErrorCode, settled_bytes: int) -> None:
        self._hear("refused")
        self.nacks.append(Nack(refused, code, settled_bytes))

    def verifying(self, wait_ms: int) -> None:
        self._hear("verifying")
        self.waits_ms.append(wait_ms)

    def finished(self, upload: Upload) -> None:
        self._hear("finished")
        self.completed = upload

    def aborted(self, upload_id: int) -> None:
        self._hear("aborted")
        self.aborted_id = upload_id

    def failed(self, code: ErrorCode, detail: str) -> None:
        self._hear("failed")
        self.error, self.detail = code, detail

    def _hear(self, what: str) -> None:
        assert not self.is_over, f"{what} is told to a stream that is over"
        self.heard.append(what)


@dataclass
class FakeDisk:
    """Room as the test sets it."""

    free_bytes: int = 1_000_000


class CountingEntropy:
    """Another id each time."""

    def __init__(self) -> None:
        self._next = 0

    def bytes(self, count: int) -> bytes:
        self._next += 1
        return (self._next - 1).to_bytes(count, "big")

    def uniform(self, low: float, high: float) -> float:
        return high


class Bench:
    """Uploads with all that they need. Each arrival cuts a cycle unless `cycle_bytes` says otherwise."""

    def __init__(self, policy: UploadPolicy = ROOMY, cycle_bytes: int = 1, cycle_s: float = NEVER_S) -> None:
        self.clock = FakeClock()
        self.catalog = ControlledCatalog()
        self.storage = FakeStorage(self.catalog.recorded)
        self.metrics = Metrics(started_ms=0)
        self.log = CapturedLog()
        self.disk = FakeDisk()
        self.admission = Admission(self.catalog, self.disk, policy)
        self.failures: list[BaseException] = []
        self.tasks = Tasks(self.failures.append)
        self.leases: list[CountedLease] = []
        settings = CycleSettings(cycle_bytes, cycle_s)
        self.committer = Committer(self.storage, self.catalog, self.clock, self.metrics, settings)
        self.digester = Digester(self.storage, LoopThreads())
        self.uploads = Uploads(
            catalog=self.catalog,
            storage=self.storage,
            committer=self.committer,
            digester=self.digester,
            admission=self.admission,
            clock=self.clock,
            entropy=CountingEntropy(),
            metrics=self.metrics,
            log=self.log.logger,
            tasks=self.tasks,
        )

    def set_policy(self, **changes: int) -> None:
        """Other limits from now on."""
        self.admission.policy = replace(self.admission.policy, **changes)

    async def answer(self, request: OpenRequest, stream: Stream) -> tuple[OpenResult, LiveUpload | None] | Refusal:
        """What an OPEN comes to."""
        return await self.uploads.open(request, stream)

    async def open(self, request: OpenRequest = REQUEST) -> tuple[LiveUpload, Stream]:
        """An upload that was opened, and its stream."""
        stream = Stream()
        answer = await self.answer(request, stream)
        assert not isinstance(answer, Refusal), answer
        assert answer[1] is not None
        return answer[1], stream

    async def refusal(self, request: OpenRequest = REQUEST) -> ErrorCode:
        """Why an upload cannot be opened."""
        answer = await self.answer(request, Stream())
        assert isinstance(answer, Refusal)
        assert answer.detail
        return answer.code

    def send(self, upload: LiveUpload, start: int, *pieces: bytes) -> CountedLease:
        """Chunks arrive in memory of their own, as one run of bytes."""
        lease = CountedLease(b"".join(pieces))
        self.leases.append(lease)
        position, data = 0, []
        for piece in pieces:
            data.append(lease.view[position : position + len(piece)].toreadonly())
            position += len(piece)
        self.uploads.receive(upload, run(start, tuple(data), lease))
        return lease

    def assert_at_rest(self, *opened: LiveUpload) -> None:
        """Nothing is kept in memory, but for the uploads that are open."""
        assert self.failures == []
        assert self.committer.pending_bytes == 0
        assert [lease.holders for lease in self.leases] == [0] * len(self.leases)
        assert self.storage.open_ids == {upload.id for upload in opened}
        assert [upload.id for upload in opened if not self.uploads.is_live(upload.id)] == []
        assert len(self.tasks) == 0


def run(start: int, data: tuple[Buffer, ...], lease: Lease | None = None) -> ChunksReceived:
    """Chunks that arrived on a stream."""
    end = start + sum(len(piece) for piece in data)
    return ChunksReceived(1, start, end, data, len(data), ChecksumKind.SUM8, lease)


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    """Cycles and digests run meanwhile."""
    uploads = bench.uploads
    async with background(bench.committer.run(uploads), bench.digester.run(uploads.digested, uploads.unreadable)):
        yield bench
        await bench.tasks.cancel()
    await bench.digester.close()
    await bench.catalog.close()


def finish(size: int, crc32c: int | None = None, sha256: bytes | None = None) -> frames.Finish:
    """A FINISH."""
    return frames.Finish(size, crc32c, sha256)
