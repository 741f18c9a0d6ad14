"""A server on loopback that misbehaves by script, one script for each connection in order."""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from protocol import codec, frames
from protocol.constants import Action, Feature, FrameType
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
from protocol.frame_buffer import Borrower
from protocol.server import ServerConnection, ServerLimits
from protocol.server_output import WAIT_MS
from protocol.state import ConnectionState
from protocol.timers import TimerSettings
from tests.support.fake_answers import Answers, Archive
from tests.support.welcomes import WELCOME

TIMERS = TimerSettings(
    handshake_timeout_s=60, keepalive_s=60, idle_timeout_s=600, rate_min_bytes_per_s=0, rate_window_s=60
)

_PONG = bytes([FrameType.PONG])
_PONG_BYTES = len(codec.encode(frames.Pong(0)))


class OwnLease:
    """Memory for one chunk, without a pool."""

    is_shared = False

    def __init__(self, size_bytes: int) -> None:
        self.view = memoryview(bytearray(size_bytes))

    def retain(self) -> None:
        """There is no pool."""

    def release(self) -> None:
        """There is no pool."""


class OwnBuffers:
    """The memory of one connection, without a pool."""

    def __init__(self) -> None:
        self.shared = memoryview(bytearray(64 * 1024))

    def lease(self, size_bytes: int, borrower: Borrower | None = None) -> OwnLease:
        return OwnLease(size_bytes)

    try_lease = lease


Hook = Callable[["Session", ServerEvent], None]


@dataclass
class Script:
    """How one connection misbehaves. Each hook replaces the answer to one event of its kind; they are used in order."""

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
    """One connection to the server."""

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
        self.connection = ServerConnection(limits, OwnBuffers(), 0.0, lambda: WAIT_MS)
        self.received = bytearray()
        self.handshake_bytes = 0
        self.events: list[ServerEvent] = []
        self.is_mute = False
        self._unmuted = asyncio.Event()
        self._answers = Answers(server, self.connection, welcome, script.challenge)

    @property
    def hello(self) -> HelloReceived | None:
        """The device's HELLO."""
        return self._answers.hello

    @property
    def received_bytes(self) -> int:
        """How many bytes the device has sent."""
        return len(self.received)

    async def run(self) -> None:
        while data := await self._read():
            self.received += data
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
        # asyncio's TLS transport forgets its protocol when it is closed twice, and can then no longer be aborted.
        with contextlib.suppress(AttributeError):
            self.writer.transport.abort()

    def mute(self) -> None:
        """Read and send nothing more, like a host without power."""
        self.is_mute = True

    def close(self) -> None:
        """Release everything at the end of the test."""
        self._unmuted.set()
        self.cut()

    def hang_up(self) -> None:
        """Send what is queued, then close in order."""
        self.flush()
        self.writer.close()

    def flush(self) -> None:
        data = self.connection.data_to_send(0.0)
        if data and not self.writer.is_closing():
            self.writer.write(data)

    def raw(self, data: bytes) -> None:
        """Send bytes that bypass the protocol."""
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
        """Answer an event that a hook held, and the events after it."""
        self.answer(held)
        while events := self.connection.resume(0.0):
            self._answer(events)
        self.flush()

    def answer(self, event: ServerEvent) -> None:
        """Answer correctly."""
        self._answers.answer(event)


class FakeServer(Archive):
    """Listens on loopback. Connections follow `scripts` in order; later connections behave."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.scripts: deque[Script] = deque()
        self.sessions: list[Session] = []
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


def error_frame(code: int, action: Action, stream: int) -> bytes:
    """An ERROR with any code and without text or wait, which a ServerConnection would not send."""
    return codec.encode(frames.Error(code, action, 0), stream)


def breaks_connection(code: ErrorCode, wait_ms: int = 0) -> Hook:
    """End the connection instead of answering."""
    return lambda session, _: session.connection.fail(code, f"said {code.name}", wait_ms)


def breaks_stream(code: ErrorCode, wait_ms: int = 0) -> Hook:
    """End the event's stream instead of answering."""

    def hook(session: Session, event: ServerEvent) -> None:
        session.connection.fail_stream(event.stream, code, f"said {code.name}", wait_ms)  # type: ignore[union-attr]  # scripts use it only for events with a stream

    return hook
