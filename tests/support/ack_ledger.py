"""A device that records every acknowledgement, by upload id, over any number of connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from protocol import frames
from protocol.client import ClientConnection
from protocol.constants import (
    CONTROL_FRAME_BYTES_MAX,
    SIZE_UNKNOWN,
    CredentialKind,
    Disposition,
    Feature,
    FrameType,
    UploadState,
)
from protocol.events import Acknowledged, Answered, ClientEvent, Failed, ServerMisbehaved, Welcomed
from protocol.ranges import Span
from tests.support.deadlines import DEADLINE_S

ACK_RANGES_MAX = 16
READ_BYTES = 64 * 1024


class PromiseBroken(AssertionError):
    """An acknowledged byte is missing, or N went down."""


class LinkLost(Exception):
    """The connection is over."""


class StreamFailed(Exception):
    """The server ended the stream with `error`."""

    def __init__(self, error: frames.Error) -> None:
        super().__init__(f"0x{error.code:04x}: {error.text}")
        self.error = error


@dataclass(slots=True)
class Promise:
    """What was acknowledged of one upload id: all of `content` below `next_expected_byte`, and `beyond`."""

    upload_id: int
    content: bytes
    next_expected_byte: int = 0
    beyond: set[Span] = field(default_factory=set)
    finished: frames.Finished | None = None

    def acknowledge(self, next_expected_byte: int, ranges: Iterable[Span]) -> None:
        """Raises PromiseBroken when the number goes down."""
        if next_expected_byte < self.next_expected_byte:
            raise PromiseBroken(f"{self} was acknowledged, but N is now {next_expected_byte}")
        self.next_expected_byte = next_expected_byte
        self.beyond = {each for each in {*self.beyond, *ranges} if each.end > next_expected_byte}

    def finish(self, answer: frames.Finished) -> None:
        """Record that all of it is promised now."""
        self.acknowledge(len(self.content), ())
        self.finished = answer

    def path(self, data_dir: Path) -> Path:
        """The file that holds the bytes."""
        return data_dir / "files" / f"{self.upload_id % 256:02x}" / f"{self.upload_id:016x}"

    def missing(self, data_dir: Path) -> list[Span]:
        """Acknowledged bytes that the file does not hold bit for bit."""
        promised = [Span(0, self.next_expected_byte), *sorted(self.beyond)]
        promised = [each for each in promised if each.start < each.end]
        if not promised:
            return []
        try:
            kept = self.path(data_dir).read_bytes()
        except OSError:
            # The file is missing, or the file system lost more than the file. Either way the bytes are gone.
            return promised
        return [each for each in promised if kept[each.start : each.end] != self.content[each.start : each.end]]

    def __str__(self) -> str:
        return f"{self.next_expected_byte} of upload {self.upload_id:016x}"


class Ledger:
    """All promises of a daemon. `acks` counts the ACK and FINISHED frames."""

    def __init__(self) -> None:
        self._acknowledged = asyncio.Event()
        self.promises: dict[int, Promise] = {}
        self.acks = 0
        self.resumes = 0

    def count(self) -> None:
        """Count one more acknowledgement."""
        self.acks += 1
        self._acknowledged.set()

    async def until(self, acks: int) -> None:
        """Wait until `acks` acknowledgements were counted. Raises TimeoutError."""
        async with asyncio.timeout(DEADLINE_S):
            while self.acks < acks:
                self._acknowledged.clear()
                await self._acknowledged.wait()

    def opened(self, answer: frames.Opened, content: bytes) -> Promise:
        """Record that an upload opened at N, which is a promise too. Raises PromiseBroken."""
        self.resumes += answer.next_expected_byte > 0
        promise = self.promises.setdefault(answer.upload_id, Promise(answer.upload_id, content))
        promise.acknowledge(answer.next_expected_byte, answer.ranges or ())
        return promise

    def check(self, data_dir: Path) -> None:
        """Check that every acknowledged byte is there. Raises PromiseBroken."""
        for promise in self.promises.values():
            if missing := promise.missing(data_dir):
                raise PromiseBroken(f"{promise} was acknowledged, but is missing: {missing}")

    @property
    def acknowledged_bytes(self) -> int:
        """All acknowledged bytes below each N."""
        return sum(promise.next_expected_byte for promise in self.promises.values())


class Connection:
    """One connection of a device. It records each acknowledgement in the ledger as soon as it is read."""

    def __init__(self, writer: asyncio.StreamWriter, connection: ClientConnection, ledger: Ledger) -> None:
        self._writer = writer
        self._connection = connection
        self._ledger = ledger
        self._contents: dict[int, bytes] = {}
        self._news = asyncio.Event()
        self.promises: dict[int, Promise] = {}
        self.opened: dict[int, frames.Opened] = {}
        self.finished: dict[int, frames.Finished] = {}
        self.failed: dict[int, frames.Error | frames.Refused] = {}
        self.goaway: frames.Goaway | None = None
        self.sent: dict[int, int] = {}
        self.is_over = False

    @property
    def is_settled(self) -> bool:
        """Whether every byte sent was acknowledged or refused."""
        return self._connection.welcome is not None and not self._connection.unanswered_bytes

    def has_room(self, count: int) -> bool:
        """Whether the window has room for a chunk of `count` bytes."""
        return self._connection.window_left_bytes >= count

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read the server's output until the connection ends."""
        try:
            while data := await reader.read(READ_BYTES):
                for event in self._connection.receive(data):
                    self._take(event)
                self.flush()
                self._notify()
        except OSError:
            # A killed daemon resets its connections; what was read before still counts.
            return
        finally:
            self.is_over = True
            self._notify()

    async def until(self, holds: Callable[[], bool], *, stream: int | None = None) -> None:
        """Wait until `holds()` is true. Raises LinkLost, TimeoutError, and StreamFailed if `stream` fails."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                if stream is not None and isinstance(error := self.failed.get(stream), frames.Error):
                    raise StreamFailed(error)
                if self.is_over:
                    raise LinkLost
                await self._news.wait()

    async def until_over(self) -> None:
        """Wait until the server has closed the connection. Raises TimeoutError."""
        with contextlib.suppress(LinkLost):
            await self.until(lambda: False)

    async def welcomed(self) -> frames.Welcome:
        """Wait for WELCOME. Raises LinkLost."""
        self.flush()
        await self.until(lambda: self._connection.welcome is not None)
        if self._connection.welcome is None:
            raise LinkLost
        return self._connection.welcome

    async def open(
        self,
        name: str,
        content: bytes,
        *,
        declared: bool = True,
        disposition: Disposition = Disposition.RESUME_OR_CREATE,
    ) -> int:
        """Open the upload of `content` and return its stream. Raises LinkLost, StreamFailed."""
        size = len(content) if declared else SIZE_UNKNOWN
        stream = self._connection.open(frames.Open(disposition, size, name))
        self._contents[stream] = content
        self.sent[stream] = 0
        self.flush()
        await self.until(lambda: stream in self.opened, stream=stream)
        return stream

    async def chunk(self, stream: int, start: int, end: int) -> None:
        """Send a chunk once the window has room. Raises LinkLost, StreamFailed."""
        await self.until(lambda: self.has_room(end - start) and stream not in self.failed, stream=stream)
        data = self._contents[stream][start:end]
        self._connection.chunk(stream, start, data, FrameType.CHUNK_CRC32C)
        self.sent[stream] += len(data)
        self.flush()
        try:
            await self._writer.drain()
        except OSError:
            # ACKs may still be unread. The reader ends the link once it has read them.
            await self.until(lambda: self.is_over)
            raise LinkLost from None

    async def send(self, stream: int, spans: Iterable[Span]) -> None:
        """Send chunks until all are sent or GOAWAY comes. Raises LinkLost, StreamFailed."""
        for span in spans:
            await self._until_room_or_goaway(stream, span.end - span.start)
            if self.goaway is not None:
                return
            await self.chunk(stream, span.start, span.end)

    async def _until_room_or_goaway(self, stream: int, count: int) -> None:
        await self.until(lambda: self.goaway is not None or self.has_room(count), stream=stream)

    async def finish(self, stream: int) -> frames.Finished:
        """Raises LinkLost, StreamFailed."""
        self._connection.finish(stream, frames.Finish(len(self._contents[stream])))
        self.flush()
        await self.until(lambda: stream in self.finished, stream=stream)
        return self.finished[stream]

    async def upload(
        self, name: str, content: bytes, chunk_bytes: int, order: Callable[[list[Span]], list[Span]] = list
    ) -> Promise:
        """Open, send the missing bytes in the given order, and finish. Raises LinkLost, StreamFailed."""
        stream = await self.open(name, content)
        if self.opened[stream].state is UploadState.RECEIVING:
            await self.send(stream, order(spans(self.promises[stream], chunk_bytes)))
            if self.goaway is not None:
                raise LinkLost
            await self.finish(stream)
        return self.promises[stream]

    def flush(self) -> None:
        """Write all pending output to the socket."""
        if data := self._connection.data_to_send():
            self._writer.write(b"".join(data))

    def _take(self, event: ClientEvent) -> None:
        match event:
            case Acknowledged(stream, next_expected_byte, ranges):
                self._ledger.count()
                if stream in self.promises:
                    self.promises[stream].acknowledge(next_expected_byte, ranges)
            case Answered(stream, frames.Opened() as answer):
                self.promises[stream] = self._ledger.opened(answer, self._contents[stream])
                self.opened[stream] = answer
            case Answered(stream, frames.Finished() as answer):
                self._ledger.count()
                self.promises[stream].finish(answer)
                self.finished[stream] = answer
            case Answered(_, frames.Goaway() as answer):
                self.goaway = answer
            case Failed(stream, error):
                self.failed[stream] = error
            case ServerMisbehaved(_, detail):
                raise AssertionError(f"the server broke the protocol: {detail}")
            case Answered() | Welcomed():
                pass
            case _:
                raise AssertionError(f"unexpected event: {event}")

    def _notify(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


@asynccontextmanager
async def connected(address: tuple[str, int], token: str, ledger: Ledger) -> AsyncIterator[Connection]:
    """A connection after WELCOME. Raises LinkLost, also instead of OSError."""
    hello = frames.Hello(
        CredentialKind.TOKEN, Feature.CHUNK_CRC32C, CONTROL_FRAME_BYTES_MAX, ack_ranges_max=ACK_RANGES_MAX, token=token
    )
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError:
        raise LinkLost from None
    connection = Connection(writer, ClientConnection(hello), ledger)
    reading = asyncio.create_task(connection.read(reader))
    try:
        await connection.welcomed()
        yield connection
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        # Raises the reader's failure, such as a broken promise or protocol.
        await reading


def spans(promise: Promise, chunk_bytes: int) -> list[Span]:
    """Chunks that cover all unacknowledged bytes."""
    size = len(promise.content)
    chunks, start = [], promise.next_expected_byte
    for kept in [*sorted(promise.beyond), Span(size, size)]:
        chunks += [
            Span(each, min(each + chunk_bytes, kept.start))
            for each in range(start, max(kept.start, start), chunk_bytes)
        ]
        start = max(start, kept.end)
    return chunks
