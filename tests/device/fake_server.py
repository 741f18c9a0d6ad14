"""A server in memory over real loopback sockets. Scripts make its connections misbehave, one after the other."""

import asyncio
import contextlib
import hashlib
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from protocol import codec, frames
from protocol.checksum import crc32c
from protocol.constants import (
    AUTHORITY_UNLIMITED_S,
    NEVER_S,
    SIZE_UNKNOWN,
    Action,
    Disposition,
    Durability,
    Feature,
    FrameType,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.events import (
    ChunksReceived,
    FinishRequested,
    HelloReceived,
    OpenRequested,
    ProofReceived,
    QueryReceived,
    ServerEvent,
    TokenOffered,
)
from protocol.handshake import prove
from protocol.ranges import RangeSet, Span
from protocol.server import ServerConnection, ServerLimits
from protocol.state import ConnectionState
from protocol.timers import TimerSettings

ALL_FEATURES = Feature.CHUNK_COMPACT | Feature.CHUNK_CRC32C | Feature.SHA256

WELCOME = frames.Welcome(
    version=1,
    durability=Durability.SYNC,
    ranges_max=32,
    streams_max=16,
    keepalive_s=20,
    features=ALL_FEATURES,
    chunk_bytes_max=256 * 1024,
    window_bytes=1024 * 1024,
    authority_s=AUTHORITY_UNLIMITED_S,
    server_time_ms=0,
    connection_id=7,
)

TIMERS = TimerSettings(
    handshake_timeout_s=60, keepalive_s=60, idle_timeout_s=600, rate_min_bytes_per_s=0, rate_window_s=60
)

_PONG = bytes([FrameType.PONG])
_PONG_BYTES = len(codec.encode(frames.Pong(0)))


class OwnLease:
    """Memory that nobody else uses."""

    def __init__(self, size_bytes: int) -> None:
        self.view = memoryview(bytearray(size_bytes))

    def retain(self) -> None:
        """Nothing is given back."""

    def release(self) -> None:
        """Nothing is given back."""


class OwnBuffers:
    """Memory of one connection."""

    def __init__(self) -> None:
        self.shared = memoryview(bytearray(64 * 1024))

    def lease(self, size_bytes: int) -> OwnLease:
        return OwnLease(size_bytes)


@dataclass
class Stored:
    """What the server has under one name."""

    id: int
    size: int
    tag: bytes | None
    data: bytearray = field(default_factory=bytearray)
    ranges: RangeSet = field(default_factory=RangeSet)
    state: UploadState = UploadState.RECEIVING
    opens: list[frames.Open] = field(default_factory=list)

    def write(self, event: ChunksReceived) -> None:
        data = b"".join(event.data)
        self.data.extend(bytes(max(event.end - len(self.data), 0)))
        for gap in self.ranges.missing(event.start, event.end):
            part = data[gap.start - event.start : gap.end - event.start]
            self.data[gap.start : gap.end] = part
            self.ranges.add(gap.start, gap.end, crc32c(part))

    @property
    def beyond(self) -> tuple[Span, ...]:
        return tuple(Span(each.start, each.end) for each in self.ranges.beyond_next())

    @property
    def crc32c(self) -> int:
        return self.ranges.prefix_crc32c()


Hook = Callable[["Session", ServerEvent], None]


@dataclass
class Script:
    """How one connection departs from the rule. Each hook replaces the answer to one event of its kind, in order."""

    welcome: frames.Welcome = WELCOME
    cut_after_bytes: int | None = None
    challenge: bytes | None = None
    hellos: deque[Hook] = field(default_factory=deque)
    proofs: deque[Hook] = field(default_factory=deque)
    opens: deque[Hook] = field(default_factory=deque)
    chunks: deque[Hook] = field(default_factory=deque)
    finishes: deque[Hook] = field(default_factory=deque)
    tokens: deque[Hook] = field(default_factory=deque)
    queries: deque[Hook] = field(default_factory=deque)
    pongs: list[bytes] = field(default_factory=list)


class Session:
    """One connection at the server."""

    def __init__(
        self, server: "FakeServer", script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.script = script
        self.reader = reader
        self.writer = writer
        welcome = script.welcome
        limits = ServerLimits(
            welcome.chunk_bytes_max, welcome.window_bytes, welcome.streams_max, Feature(welcome.features), TIMERS
        )
        self.connection = ServerConnection(limits, OwnBuffers(), 0.0)
        self.received_bytes = 0
        self.handshake_bytes = 0
        self.hello: HelloReceived | None = None
        self.uploads: dict[int, Stored] = {}
        self.events: list[ServerEvent] = []
        self.is_mute = False
        self._unmuted = asyncio.Event()
        self._challenge = b""

    async def run(self) -> None:
        while data := await self._read():
            self.received_bytes += len(data)
            if data.startswith(_PONG):
                self.script.pongs.append(data[:_PONG_BYTES])
            self._feed(data)
            self.flush()
            if self.connection.state is ConnectionState.CLOSING and self.writer.can_write_eof():
                self.writer.write_eof()
            if self.is_mute:
                await self._unmuted.wait()
                return
            if self.script.cut_after_bytes is not None and self.received_bytes >= self.script.cut_after_bytes:
                self.cut()
                return

    async def _read(self) -> bytes:
        cut = self.script.cut_after_bytes
        count = 64 * 1024 if cut is None else min(cut - self.received_bytes, 64 * 1024)
        try:
            return await self.reader.read(count)
        except ConnectionError:
            return b""

    def cut(self) -> None:
        """Cut the link."""
        # asyncio's TLS transport forgets its protocol when it is closed twice, and cannot be aborted then.
        with contextlib.suppress(AttributeError):
            self.writer.transport.abort()

    def mute(self) -> None:
        """Read and say nothing more, as a host that lost its power."""
        self.is_mute = True

    def close(self) -> None:
        """The test is over."""
        self._unmuted.set()
        self.cut()

    def hang_up(self) -> None:
        """Send what is queued, then close in order."""
        self.flush()
        self.writer.close()

    def flush(self) -> None:
        data = self.connection.data_to_send()
        if data and not self.writer.is_closing():
            self.writer.write(data)

    def raw(self, data: bytes) -> None:
        """Send bytes past the protocol."""
        self.flush()
        self.writer.write(data)

    def _feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            room = self.connection.get_buffer()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            view = view[count:]
            self._answer(self.connection.received(count, 0.0))
            while events := self.connection.resume(0.0):
                self._answer(events)

    def _answer(self, events: list[ServerEvent]) -> None:
        for event in events:
            self.events.append(event)
            match event:
                case HelloReceived(raw=raw):
                    self.handshake_bytes += len(raw)
                case ProofReceived(proof):
                    self.handshake_bytes += len(codec.encode(frames.Proof(proof)))
            hooks = self._hooks(event)
            if hooks:
                hooks.popleft()(self, event)
            else:
                self.answer(event)

    def _hooks(self, event: ServerEvent) -> deque[Hook]:
        match event:
            case HelloReceived():
                return self.script.hellos
            case ProofReceived():
                return self.script.proofs
            case OpenRequested():
                return self.script.opens
            case ChunksReceived():
                return self.script.chunks
            case FinishRequested():
                return self.script.finishes
            case TokenOffered():
                return self.script.tokens
            case QueryReceived():
                return self.script.queries
        return deque()

    def go_on(self, held: ServerEvent) -> None:
        """Answer what a hook has kept waiting, and then what came behind it."""
        self.answer(held)
        while events := self.connection.resume(0.0):
            self._answer(events)
        self.flush()

    def answer(self, event: ServerEvent) -> None:
        """As a good server does."""
        match event:
            case HelloReceived():
                self.hello = event
                if self.script.challenge is not None:
                    self._challenge = self.connection.challenge(self.script.challenge)
                else:
                    self._welcome(event.hello)
            case ProofReceived(proof):
                assert self.hello is not None
                if proof == prove(self.server.device_key, self.hello.raw, self._challenge):
                    self._welcome(self.hello.hello)
                else:
                    self.connection.fail(ErrorCode.UNAUTHENTICATED, "the proof is wrong")
            case OpenRequested(stream, request):
                self._open(stream, request)
            case ChunksReceived():
                self._store(event)
            case FinishRequested(stream, finish):
                self._finish(stream, finish)
            case TokenOffered(token):
                self.server.tokens.append(token)
                self.connection.refreshed(AUTHORITY_UNLIMITED_S)
            case QueryReceived(stream, name):
                self.connection.send(stream, self._status(name))

    def _welcome(self, hello: frames.Hello) -> None:
        features = self.script.welcome.features & hello.features
        self.connection.welcome(replace(self.script.welcome, features=features))

    def _open(self, stream: int, request: frames.Open) -> None:
        stored = self.server.files.get(request.name)
        if stored is not None and request.disposition is not Disposition.REPLACE:
            if (stored.size, stored.tag) != (request.size, request.tag):
                self.connection.fail_stream(stream, ErrorCode.CONTENT_CHANGED, "another size or tag")
                return
        elif stored is None and request.disposition is Disposition.RESUME_ONLY:
            self.connection.fail_stream(stream, ErrorCode.NOT_FOUND, "nothing is known")
            return
        else:
            stored = self.server.create(request)
        stored.opens.append(request)
        self.uploads[stream] = stored
        is_complete = stored.state is UploadState.COMPLETE
        opened = frames.Opened(
            stored.id,
            stored.state,
            UploadState.NONE,
            stored.ranges.next_expected_byte,
            NEVER_S,
            crc32c=stored.crc32c if is_complete else None,
            ranges=stored.beyond or None,
            sha256=hashlib.sha256(stored.data).digest() if is_complete else None,
        )
        self.connection.opened(stream, opened, request.size)

    def _store(self, event: ChunksReceived) -> None:
        stored = self.uploads[event.stream]
        stored.write(event)
        self.server.stored_bytes += event.end - event.start
        self.connection.acknowledge(
            event.stream, stored.ranges.next_expected_byte, stored.beyond, event.end - event.start
        )

    def _finish(self, stream: int, finish: frames.Finish) -> None:
        stored = self.uploads[stream]
        missing = stored.ranges.missing(0, finish.size)
        sha256 = hashlib.sha256(stored.data).digest()
        if missing:
            self.connection.refuse_range(stream, missing[0], ErrorCode.INCOMPLETE, 0)
        elif finish.crc32c not in (None, stored.crc32c) or finish.sha256 not in (None, sha256):
            stored.state = UploadState.REJECTED
            del self.server.files[stored.opens[-1].name]
            self.connection.fail_stream(stream, ErrorCode.DIGEST_MISMATCH, "the digest does not fit")
        else:
            stored.state = UploadState.COMPLETE
            self.server.finishes.append(finish)
            given = sha256 if finish.sha256 is not None else None
            self.connection.finished(stream, frames.Finished(stored.id, finish.size, stored.crc32c, given))

    def _status(self, name: str) -> frames.Status:
        stored = self.server.files.get(name)
        if stored is None:
            return frames.Status(0, UploadState.NONE, 0, SIZE_UNKNOWN)
        return frames.Status(stored.id, stored.state, stored.ranges.next_expected_byte, stored.size)


class FakeServer:
    """Listens on loopback; connections follow `scripts` in order, then the rule."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.scripts: deque[Script] = deque()
        self.files: dict[str, Stored] = {}
        self.sessions: list[Session] = []
        self.tokens: list[str] = []
        self.finishes: list[frames.Finish] = []
        self.device_key = b""
        self.stored_bytes = 0
        self.port = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "FakeServer":
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._listener.wait_closed()
        for session in self.sessions:
            session.close()
        await asyncio.gather(*self._tasks)

    def create(self, request: frames.Open) -> Stored:
        stored = Stored(100 + len(self.files), request.size, request.tag)
        self.files[request.name] = stored
        return stored

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        session = Session(self, self.scripts.popleft() if self.scripts else Script(), reader, writer)
        self.sessions.append(session)
        await session.run()
        writer.close()


def deque_of(*hooks: Hook) -> deque[Hook]:
    """Hooks in their order."""
    return deque(hooks)


def replaced(
    *,
    window_bytes: int = WELCOME.window_bytes,
    chunk_bytes_max: int = WELCOME.chunk_bytes_max,
    streams_max: int = WELCOME.streams_max,
    authority_s: int = WELCOME.authority_s,
) -> frames.Welcome:
    """The WELCOME of a server with other limits."""
    return replace(
        WELCOME,
        window_bytes=window_bytes,
        chunk_bytes_max=chunk_bytes_max,
        streams_max=streams_max,
        authority_s=authority_s,
    )


def without(*features: Feature) -> frames.Welcome:
    """The WELCOME of a server that cannot do these."""
    left = ALL_FEATURES
    for feature in features:
        left &= ~feature
    return replace(WELCOME, features=left)


def error_frame(code: int, action: Action, stream: int) -> bytes:
    """An ERROR that a ServerConnection would not send: without a text or a time, and of any code."""
    return codec.encode(frames.Error(code, action, 0), stream)
