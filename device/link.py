"""One connection of a device on asyncio: moves bytes between protocol.client and a socket. PROTOCOL.md §3 to §15."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from device.backpressure import Outlet
from device.credentials import Credentials
from device.exceptions import CredentialError, Ending, LinkOver, explain
from device.pace import Pace
from protocol import frames
from protocol.checksum import Buffer
from protocol.client import ClientConnection
from protocol.constants import AUTHORITY_UNLIMITED_S, STREAM_MAX, Action, Feature, FrameType, UploadState
from protocol.errors import ErrorCode
from protocol.events import Acknowledged, Answered, Challenged, ClientEvent, Failed, ServerMisbehaved, Welcomed
from protocol.exceptions import LocalProtocolError
from protocol.state import ConnectionState

TICK_S = 1.0
"""How often the time is looked at: keep-alive is counted in whole seconds."""

SILENCE_FACTOR = 2.5
"""Silent for this many keep-alive intervals, the server is taken for dead: two probes of ours were lost."""

LINGER_S = 5.0
"""How long after GOAWAY to wait for the acknowledgements of what is under way."""

REFRESH_FRACTION = 2 / 3
"""When of a token's time to offer the next: PROTOCOL.md §13."""

REFRESH_RETRY_S = 5.0
"""How soon to ask for a token again when none was to be had."""

CLOSE_TIMEOUT_S = 2.0
"""How long an orderly close may take before the connection is cut."""

READ_BYTES = 64 * 1024
"""Read at a time; answers are small."""


class StreamHandler(Protocol):
    """What is told the events of one stream."""

    @property
    def awaits_end(self) -> bool:
        """Everything was said; only the server's last answer is missing."""
        ...

    def take(self, event: Acknowledged | Answered | Failed) -> None:
        """An event of the stream; must not raise. Failed, FINISHED, STATUS and OPENED COMPLETE are the last."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Time as the library sees it; monotonic seconds. The handshake may take `handshake_timeout_s`."""

    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    handshake_timeout_s: float


class Link:
    """One connection, from HELLO to its end. `judge` is told once how it ended, and may amend that.

    `features` are taken to be in force until WELCOME tells, so that OPEN need not wait for it.
    """

    def __init__(
        self,
        connection: ClientConnection,
        streams: tuple[StreamReader, StreamWriter],
        credentials: Credentials,
        timing: Timing,
        judge: Callable[[Ending], Ending],
        pace: Pace,
        features: Feature,
    ) -> None:
        self._connection = connection
        self._reader, self._writer = streams
        self._outlet = Outlet(self._writer)
        self._credentials = credentials
        self._timing = timing
        self._judge = judge
        self._pace = pace
        self.features = features
        self._handlers: dict[int, StreamHandler] = {}
        self._query = STREAM_MAX
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._heard = self._pinged = timing.clock()
        self._refreshed: asyncio.Queue[int] = asyncio.Queue()
        self._leaving: Ending | None = None
        self._leave_by = 0.0
        self.slots = asyncio.Semaphore(1)
        self.ending: Ending | None = None

    # Life.

    async def proven(self) -> None:
        """Until the server has all that it needs to know who this is. Raises LinkOver."""
        while self._connection.state not in {ConnectionState.CHALLENGED, ConnectionState.OPEN}:
            await self.news()

    async def welcomed(self) -> None:
        """Until the handshake is through. Raises LinkOver."""
        while self._connection.welcome is None:
            await self.news()

    async def run(self) -> None:
        """Serve the connection until it is over, or until cancelled; `close` must follow."""
        self._flush()
        tasks = [asyncio.create_task(each) for each in (self._read(), self._watch(), self._refresh())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._end(next(task for task in tasks if task in done).result())
        finally:
            self._outlet.close()
            if self.ending is not None:
                self._writer.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Close the socket, sending what is queued where it is not broken; whoever waits goes on elsewhere."""
        if self.ending is None:
            self.ending = Ending("the connection was closed by this end")
            self._tell()
        # Here too: who is cancelled before its first step never ran.
        self._outlet.close()
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        except OSError:
            # Nothing is lost: what was not acknowledged counts as unsent. A TimeoutError is an OSError too.
            self._writer.transport.abort()

    # Work.

    @property
    def welcome(self) -> frames.Welcome:
        """What is in force. Raises RuntimeError before `welcomed` is through."""
        if self._connection.welcome is None:
            raise RuntimeError("there was no WELCOME yet")
        return self._connection.welcome

    @property
    def chunk_bytes(self) -> int:
        """How much data the next chunk should have."""
        return min(self._pace.chunk_bytes, self.welcome.chunk_bytes_max, self.welcome.window_bytes)

    def open(self, request: frames.Open, handler: StreamHandler) -> int:
        """Open an upload; its events go to `handler` until `forget`. Raises LinkOver."""
        self._check()
        try:
            number = self._connection.open(request)
        except LocalProtocolError as used_up:
            self._writer.transport.abort()
            raise LinkOver(self._end(Ending(str(used_up)))) from used_up
        self._handlers[number] = handler
        self._flush()
        return number

    def query(self, name: str, handler: StreamHandler) -> int:
        """Ask how far a name is. Raises LinkOver."""
        self._check()
        # Counted down from the top, so that an ERROR for a query is not taken for that of an upload.
        number, self._query = self._query, self._query - 1 or STREAM_MAX
        self._handlers[number] = handler
        self._connection.query(name, number)
        self._flush()
        return number

    def finish(self, number: int, finish: frames.Finish) -> None:
        """All bytes were sent. Raises LinkOver."""
        self._check()
        self._connection.finish(number, finish)
        self._flush()

    def forget(self, number: int) -> None:
        """The events of the stream are of no more interest."""
        self._handlers.pop(number, None)

    async def chunk(self, number: int, start: int, data: Buffer, form: FrameType) -> bool:
        """Send a chunk when it is this stream's turn, and socket and window have room; the streams take turns.

        False when it was not sent as the stream has ended, or the server is going away. Raises LinkOver.
        """
        async with self._turn:
            await self._room()
            while self._takes(number) and self._connection.window_left_bytes < len(data):
                await self.news()
            if not self._takes(number):
                return False
            if self._is_idle():
                self._pace.begin(self._timing.clock())
            self._connection.chunk(number, start, data, form)
            self._flush()
        return True

    def now(self) -> float:
        """Monotonic seconds."""
        return self._timing.clock()

    async def news(self, within_s: float | None = None) -> None:
        """Until the server has said something, or `within_s` have passed. Raises LinkOver."""
        self._check()
        if within_s is None:
            await self._news.wait()
        else:
            waits = [
                asyncio.ensure_future(self._news.wait()),
                asyncio.ensure_future(self._timing.sleep(within_s)),
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        self._check()

    # Within.

    async def _room(self) -> None:
        """Until the socket should be given more. Raises LinkOver."""
        try:
            await self._outlet.room(self._pace.unsent_bytes)
        except OSError:
            # What was received before the connection broke may tell why: the reader finds out.
            while self.ending is None:
                await self.news()

    async def _read(self) -> Ending:
        try:
            async with asyncio.timeout(self._timing.handshake_timeout_s):
                while self._connection.welcome is None:
                    ending = await self._receive()
                    if ending is not None:
                        return ending
        except TimeoutError:
            return Ending(f"the server did not answer within {self._timing.handshake_timeout_s:g} s")
        while True:
            ending = await self._receive()
            if ending is not None:
                return ending

    async def _receive(self) -> Ending | None:
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError as error:
            return self._leaving or Ending(f"the connection broke: {error}")
        if not data:
            return self._leaving or Ending("the server closed the connection without a word")
        self._heard = self._timing.clock()
        ending: Ending | None = None
        is_welcomed, left_bytes = self._connection.welcome is not None, self._connection.window_left_bytes
        for event in self._connection.receive(data):
            found = self._take(event)
            ending = ending or found
        if is_welcomed:
            self._pace.settled(self._connection.window_left_bytes - left_bytes, self._heard)
        self._flush()
        self._tell()
        if self._leaving is not None and self._is_settled():
            return ending or self._leaving
        return ending

    def _take(self, event: ClientEvent) -> Ending | None:
        match event:
            case Challenged(raw=raw):
                return self._prove(raw)
            case Welcomed(welcome):
                self.features = Feature(welcome.features)
                for _ in range(welcome.streams_max - 1):
                    self.slots.release()
                self._refreshed.put_nowait(welcome.authority_s)
            case ServerMisbehaved(code, detail):
                return Ending(f"the server broke the protocol: {detail}", code.action, code)
            case Failed(stream=0, error=error):
                return Ending(
                    explain(error.code, error.text),
                    error.action,
                    error.code,
                    error.wait_ms,
                    refused=isinstance(error, frames.Refused),
                )
            case Answered(frame=frames.Refreshed(authority_s)):
                self._refreshed.put_nowait(authority_s)
            case Answered(frame=frames.Goaway(code, reconnect_ms, text)):
                self._leaving = Ending(explain(code, text), Action.WAIT, code, reconnect_ms)
                self._leave_by = self._timing.clock() + LINGER_S
            case Acknowledged() | Answered() | Failed():
                self._hand_on(event)
        return None

    def _hand_on(self, event: Acknowledged | Answered | Failed) -> None:
        match event:
            case (
                Failed()
                | Answered(frame=frames.Finished() | frames.Opened(state=UploadState.COMPLETE) | frames.Status())
            ):
                handler = self._handlers.pop(event.stream, None)
            case _:
                handler = self._handlers.get(event.stream)
        if handler is not None:
            handler.take(event)

    def _prove(self, challenge: bytes) -> Ending | None:
        proof = self._credentials.prove(self._connection.hello_raw, challenge)
        if proof is None:
            return Ending(
                "the server wants a proof, but this credential is a token",
                Action.GIVE_UP,
                ErrorCode.CREDENTIAL_UNSUPPORTED,
            )
        self._connection.prove(proof)
        return None

    async def _watch(self) -> Ending:
        await self.welcomed()
        keepalive_s = max(self.welcome.keepalive_s, 1)
        while True:
            await self._timing.sleep(TICK_S)
            now = self._timing.clock()
            if self._leaving is not None and now >= self._leave_by:
                return self._leaving
            if now - self._heard >= SILENCE_FACTOR * keepalive_s:
                return Ending(f"the server was silent for {now - self._heard:.0f} s")
            if now - max(self._heard, self._pinged) >= keepalive_s:
                self._pinged = now
                self._connection.ping(int(now) & 0xFFFFFFFF)
                self._flush()

    async def _refresh(self) -> Ending:
        while True:
            authority_s = await self._refreshed.get()
            if authority_s == AUTHORITY_UNLIMITED_S or not self._credentials.refreshable:
                continue
            await self._timing.sleep(authority_s * REFRESH_FRACTION)
            self._connection.refresh(await self._fresh_token())
            self._flush()

    async def _fresh_token(self) -> str:
        while True:
            try:
                return await self._credentials.refresh()
            except CredentialError:
                # Not the end yet: the token in force may outlast the trouble, and the server says when it has not.
                await self._timing.sleep(REFRESH_RETRY_S)

    def _takes(self, number: int) -> bool:
        self._check()
        return number in self._handlers and self._leaving is None

    def _is_idle(self) -> bool:
        return self._connection.window_left_bytes == self.welcome.window_bytes

    def _is_settled(self) -> bool:
        return self._is_idle() and not any(handler.awaits_end for handler in self._handlers.values())

    def _flush(self) -> None:
        data = self._connection.data_to_send()
        if data and not self._writer.is_closing():
            self._writer.write(b"".join(data))

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _end(self, ending: Ending) -> Ending:
        if self.ending is None:
            self.ending = self._judge(ending)
            self._tell()
        return self.ending

    def _check(self) -> None:
        if self.ending is not None:
            raise LinkOver(self.ending)
