"""Devices open, take over, send in any order and leave, while disk and catalog fail. Acknowledged bytes stay."""

import asyncio
import errno
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Outcome, State, Upload
from daemon.ingest.admission import Refusal
from daemon.ingest.live_upload import LiveUpload
from protocol.checksum import crc32c
from protocol.constants import Disposition
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.support.catalog_samples import REPLACE, REQUEST
from tests.support.deadlines import DEADLINE_S
from tests.support.loop_turns import turns
from tests.support.upload_bench import Bench
from tests.support.upload_streams import Stream, charged_bytes

Result = TypeVar("Result")

CONTENTS = {
    "sized": bytes(index * 7 % 251 for index in range(40)),
    "unsized": bytes(index * 11 % 241 for index in range(33)),
}
SIZES: dict[str, int | None] = {"sized": 40, "unsized": None}
FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


FATAL = {ErrorCode.DISK_FULL, ErrorCode.STORAGE_FAILED, ErrorCode.FENCED, ErrorCode.GONE, ErrorCode.DIGEST_MISMATCH}
"""The only errors that a device which follows the protocol may get here."""


@dataclass
class Promises:
    """What the server acknowledged of each upload, by the upload's id."""

    bench: Bench
    next_expected_byte: dict[int, int] = field(default_factory=dict)
    completed: dict[int, bytes] = field(default_factory=dict)

    def durable(self, upload_id: int, next_expected_byte: int, beyond: Sequence[Span]) -> None:
        """Record that the server has acknowledged these bytes as durable."""
        assert next_expected_byte >= self.next_expected_byte.get(upload_id, 0), "N went down"
        self.next_expected_byte[upload_id] = next_expected_byte
        self.check(upload_id, [Span(0, next_expected_byte), *beyond])

    def check(self, upload_id: int, spans: Sequence[Span]) -> None:
        """Check that after a power cut now, these bytes would be on disk and recorded in the catalog."""
        record = self.bench.catalog.at_once(upload_id)
        assert record is not None
        for start, end in spans:
            assert self.bench.storage.holds(upload_id, start, end)
            assert start == end or any(each.start <= start and end <= each.end for each in record.ranges)


@dataclass(eq=False)
class WatchedStream(Stream):
    """A device's stream that holds the server to its promises."""

    name: str = ""
    promises: Promises | None = None
    upload: LiveUpload | None = None
    charged_bytes: int = 0
    asked_to_finish: bool = False

    def acknowledged(self, next_expected_byte: int, beyond: Sequence[Span], answered_bytes: int) -> None:
        super().acknowledged(next_expected_byte, beyond, answered_bytes)
        assert self.upload is not None
        assert self.promises is not None
        self.promises.durable(self.upload.id, next_expected_byte, beyond)
        assert self.answered_bytes <= self.charged_bytes, "more was acknowledged than was sent on this stream"

    def finished(self, upload: Upload) -> None:
        super().finished(upload)
        assert self.promises is not None
        assert self.asked_to_finish
        assert (upload.state, upload.crc32c) == (State.COMPLETE, crc32c(CONTENTS[self.name]))
        self.promises.check(upload.id, [Span(0, len(CONTENTS[self.name]))])
        self.promises.completed[upload.id] = CONTENTS[self.name]


class UploadsMachine(RuleBasedStateMachine):
    """Each rule is one action of a device, the disk, the catalog or an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.do(self._start())

    def do(self, work: Coroutine[None, None, Result]) -> Result:
        return self.runner.run(asyncio.wait_for(work, DEADLINE_S))

    async def _start(self) -> None:
        self.bench = Bench(cycle_bytes=8)
        self.promises = Promises(self.bench)
        self.streams: list[WatchedStream] = []
        self.bench.storage.holds_writes = self.bench.storage.holds_syncs = True
        uploads = self.bench.uploads
        self.background = [
            asyncio.ensure_future(self.bench.committer.run(uploads)),
            asyncio.ensure_future(self.bench.digester.run(uploads.digested, uploads.unreadable)),
        ]
        self.drains: list[asyncio.Future[None]] = []

    async def _stop(self) -> None:
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        await self.bench.digester.close()
        await self.bench.catalog.close()

    # Devices.

    @rule(
        name=st.sampled_from(sorted(CONTENTS)),
        disposition=st.sampled_from([*Disposition, *[REQUEST.disposition] * 6]),
        takes_over=st.sampled_from([False, False, False, True]),
    )
    def open(self, name: str, disposition: Disposition, takes_over: bool) -> None:
        if takes_over or all(stream.name != name for stream in self.alive):
            self.do(self._open(name, disposition))

    async def _open(self, name: str, disposition: Disposition) -> WatchedStream | None:
        stream = WatchedStream(name=name, promises=self.promises)
        request = replace(REQUEST, name=name, size=SIZES[name], disposition=disposition)
        answer = await self.bench.answer(request, stream)
        if isinstance(answer, Refusal):
            assert answer.code in {ErrorCode.NOT_FOUND, ErrorCode.GONE}
            return await self._open(name, REPLACE)
        result, upload = answer
        assert result.upload is not None
        if upload is None:
            assert result.outcome is Outcome.COMPLETE
            assert result.upload.crc32c == crc32c(CONTENTS[name])
            self.promises.check(result.upload.id, [Span(0, len(CONTENTS[name]))])
            return None
        for other in self.streams:
            assert other.name != name or other.is_over, "all streams of one name but the last are fenced"
        self.promises.durable(upload.id, upload.next_expected_byte, upload.beyond())
        stream.upload = upload
        self.streams.append(stream)
        await turns()
        return stream

    def pick(self, which: int) -> tuple[WatchedStream, LiveUpload]:
        alive = self.alive
        stream = alive[which % len(alive)]
        assert stream.upload is not None
        return stream, stream.upload

    @property
    def alive(self) -> list[WatchedStream]:
        return [stream for stream in self.streams if not stream.is_over]

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 3), start=st.integers(0, 39), count=st.integers(1, 16), cut=st.integers(0, 16))
    def chunk(self, which: int, start: int, count: int, cut: int) -> None:
        self.do(self._chunk(which, start, count, cut))

    async def _chunk(self, which: int, start: int, count: int, cut: int) -> None:
        stream, upload = self.pick(which)
        data = CONTENTS[stream.name][start : start + count]
        if data:
            stream.charged_bytes += charged_bytes(len(data))
            self.bench.send(upload, start, *[piece for piece in (data[:cut], data[cut:]) if piece])
        await turns()

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 3), start=st.integers(0, 1))
    def send_all_and_finish(self, which: int, start: int) -> None:
        self.do(self._send_all_and_finish(self.pick(which)[0], start))

    async def _send_all_and_finish(self, stream: WatchedStream, start: int = 0) -> None:
        content = CONTENTS[stream.name]
        assert stream.upload is not None
        for position in range(start, len(content), 12):
            data = content[position : position + 12]
            stream.charged_bytes += charged_bytes(len(data))
            self.bench.send(stream.upload, position, data)
            if stream.is_over:
                return
        self._ask_to_finish(stream, stream.upload, crc32c(content))
        await turns()

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 3), wrong=st.sampled_from([0, 0, 0, 1]))
    def finish(self, which: int, wrong: int) -> None:
        stream, upload = self.pick(which)
        self.do(self._finish(stream, upload, crc32c(CONTENTS[stream.name]) ^ wrong))

    async def _finish(self, stream: WatchedStream, upload: LiveUpload, crc: int) -> None:
        self._ask_to_finish(stream, upload, crc)
        await turns()

    def _ask_to_finish(self, stream: WatchedStream, upload: LiveUpload, crc: int) -> None:
        stream.asked_to_finish = True
        self.bench.uploads.finish(upload, len(CONTENTS[stream.name]), crc)

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 3), how=st.sampled_from(["not", "not", "not", "detached", "aborted", "deleted"]))
    def leave(self, which: int, how: str) -> None:
        stream, upload = self.pick(which)
        if how == "detached":
            self.streams.remove(stream)
            self.do(self._leave(stream, upload))
        elif how == "aborted":
            self.do(self.bench.uploads.abort(upload))
            assert stream.is_over
        elif how == "deleted":
            self.do(self.bench.ends.end(upload.id, State.DELETED))

    async def _leave(self, stream: WatchedStream, upload: LiveUpload) -> None:
        self.bench.uploads.detach(upload, stream)
        await turns()

    # The machine.

    @rule(error=st.sampled_from([None] * 6 + [FULL, BROKEN]))
    def write(self, error: OSError | None) -> None:
        self.do(self._write(error))

    async def _write(self, error: OSError | None) -> None:
        self.bench.storage.write_next(error)
        await turns()

    @precondition(lambda self: self.bench.storage.writes)
    @rule()
    def break_write(self) -> None:
        self.bench.storage.break_write(FULL)

    @rule(error=st.sampled_from([None] * 6 + [FULL, BROKEN]))
    def sync(self, error: OSError | None) -> None:
        self.do(self._sync(error))

    async def _sync(self, error: OSError | None) -> None:
        self.bench.storage.sync_next(error)
        await turns()

    @rule(
        operation=st.sampled_from(["commit", "complete"]),
        was_done=st.booleans(),
        fails=st.sampled_from([False, False, True]),
    )
    def fail_catalog(self, operation: str, was_done: bool, fails: bool) -> None:
        if not fails:
            return
        gate = self.bench.catalog.gates[operation]
        (gate.failures_after if was_done else gate.failures).append(CatalogFailed("it failed"))

    @rule(
        operation=st.sampled_from(["commit", "complete"]),
        after=st.booleans(),
        waits=st.sampled_from([False, False, True]),
    )
    def hold_catalog(self, operation: str, after: bool, waits: bool) -> None:
        gate = self.bench.catalog.gates[operation]
        event = gate.after if after else gate.before
        if waits:
            event.clear()
        else:
            event.set()
        self.do(turns())

    @rule()
    def flow(self) -> None:
        self.do(self._flow())

    async def _flow(self) -> None:
        """Let the disk do all pending work."""
        await self._hurry()
        while self.bench.storage.writes or self.bench.storage.syncs:
            self.bench.storage.write_next()
            self.bench.storage.sync_next()
            await turns()

    @rule()
    def hurry(self) -> None:
        self.do(self._hurry())

    async def _hurry(self) -> None:
        self.drains.append(asyncio.ensure_future(self.bench.committer.drained()))
        await turns()

    @invariant()
    def nothing_unforeseen_happened(self) -> None:
        assert self.bench.failures == []
        assert [task for task in self.background if task.done()] == []
        assert self.bench.committer.pending_bytes >= 0
        assert {stream.error for stream in self.streams if stream.error is not None} <= FATAL

    def teardown(self) -> None:
        try:
            self.do(self._come_to_rest())
            self.do(self._complete_everything())
        finally:
            self.do(self._stop())
            self.runner.close()

    async def _come_to_rest(self) -> None:
        """End all failures and disconnect all devices. Acknowledged bytes are there, and memory holds nothing else."""
        bench = self.bench
        for gate in bench.catalog.gates.values():
            gate.failures.clear()
            gate.failures_after.clear()
            gate.before.set()
            gate.after.set()
        storage = bench.storage
        storage.holds_writes = storage.holds_syncs = False
        for _ in range(len(storage.writes)):
            storage.write_next()
        while storage.syncs:
            storage.sync_next()
            await turns()
        await self._drained()
        for stream in self.alive:
            assert stream.answered_bytes == stream.charged_bytes, "every byte that arrived on a stream gets an answer"
            assert stream.upload is not None
            bench.uploads.detach(stream.upload, stream)
        self.streams.clear()
        await bench.tasks.wait()
        await asyncio.gather(*self.drains)
        await turns()
        bench.assert_at_rest()
        for upload_id, next_expected_byte in self.promises.next_expected_byte.items():
            record = bench.catalog.at_once(upload_id)
            assert record is not None
            if record.state is State.RECEIVING:
                assert record.next_expected_byte >= next_expected_byte
                self.promises.check(upload_id, [Span(0, next_expected_byte)])
        for upload_id, content in self.promises.completed.items():
            record = bench.catalog.at_once(upload_id)
            if record is not None and record.state is State.COMPLETE:
                assert bench.storage.content(upload_id) == content

    async def _drained(self) -> None:
        """Finish all drains. A drain after a takeover needs one more cycle, which no clock starts here."""
        for _ in range(3):
            await self._hurry()
        assert all(drain.done() for drain in self.drains)

    async def _complete_everything(self) -> None:
        """Check that every file can still be completed."""
        for name, content in CONTENTS.items():
            stream = await self._open(name, REQUEST.disposition)
            if stream is None:
                found = await self.bench.catalog.find(REQUEST.tenant, REQUEST.device, name)
                if found is not None and found.state is State.COMPLETE:
                    assert self.bench.storage.content(found.id) == content
                    continue
                stream = await self._open(name, REPLACE)
            assert stream is not None
            assert stream.upload is not None
            await self._send_all_and_finish(stream)
            await self._drained()
            assert stream.completed is not None
            assert self.bench.storage.content(stream.upload.id) == content
        self.bench.assert_at_rest()


def test_no_promise_is_broken() -> None:
    run_state_machine_as_test(UploadsMachine, settings=settings(deadline=None, max_examples=60, stateful_step_count=50))
