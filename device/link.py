"""One connection of a device on asyncio: moves bytes between protocol.client and a socket. PROTOCOL.md §3 to §15."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

from device.backpressure import Backpressure
from device.credentials import Credentials
from device.exceptions import Ending, LinkOver, explain
from device.keepalive import TICK_S, Keepalive
from device.pace import Pace
from device.streams import StreamHandler, StreamHandlers
from device.timing import Timing
from device.token_refresh import TokenRefresh
from protocol import frames
from protocol.checksum import Buffer
from protocol.client import ClientConnection
from protocol.constants import CHUNK_OVERHEAD_BYTES, Action, Feature, FrameType
from protocol.errors import ErrorCode
from protocol.events import Acknowledged, Answered, Challenged, ClientEvent, Failed, ServerMisbehaved, Welcomed
from protocol.exceptions import LocalProtocolError
from protocol.state import ConnectionState

LINGER_S = 5.0
"""How long after GOAWAY to wait for the acknowledgements of bytes already sent."""

CLOSE_TIMEOUT_S = 2.0
"""How long an orderly close may take before the connection is cut."""

READ_BYTES = 64 * 1024
"""Read at a time; answers are small."""


class Link:
    """One connection, from HELLO to its end. `on_end` is called once with how it ended, and may amend that.

    Until WELCOME arrives, `features` are assumed, so that OPEN need not wait for it.
    """

    def __init__(
        self,
        connection: ClientConnection,
        streams: tuple[StreamReader, StreamWriter],
        credentials: Credentials,
        timing: Timing,
        on_end: Callable[[Ending], Ending],
        pace: Pace,
        features: Feature,
    ) -> None:
        self._connection = connection
        self._reader, self._writer = streams
        self._backpressure = Backpressure(self._writer)
        self._credentials = credentials
        self._timing = timing
        self._on_end = on_end
        self._pace = pace
        self.features = features
        self._streams = StreamHandlers()
        self._turn = asyncio.Lock()
        self._change = asyncio.Event()
        self._keepalive = Keepalive(timing.clock())
        self._token_refresh = TokenRefresh(credentials, timing, self._refresh)
        self._leaving: Ending | None = None
        self._leave_by = 0.0
        self.slots = asyncio.Semaphore(1)
        self.ending: Ending | None = None

    # Life.

    async def proof_sent(self) -> None:
        """Wait until the server has all it needs to know who this is. Raises LinkOver."""
        while self._connection.state not in {ConnectionState.CHALLENGED, ConnectionState.OPEN}:
            await self.changed()

    async def welcomed(self) -> None:
        """Wait until the handshake is complete. Raises LinkOver."""
        while self._connection.welcome is None:
            await self.changed()

    async def run(self) -> None:
        """Serve the connection until it is over, or until cancelled; `close` must follow."""
        self._flush()
        tasks = [asyncio.create_task(each) for each in (self._read(), self._watch(), self._token_refresh.run())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._end(next(task for task in tasks if task in done).result())
        finally:
            self._backpressure.close()
            if self.ending is not None:
                self._writer.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Close the socket; a connection that is not broken first sends what is queued. Waiting work gets LinkOver."""
        if self.ending is None:
            self.ending = Ending("the connection was closed by this end")
            self._notify()
        # `run` has done so too, unless it was cancelled before its first step.
        self._backpressure.close()
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
        """What is in force. Raises RuntimeError before `welcomed` returns."""
        if self._connection.welcome is None:
            raise RuntimeError("there was no WELCOME yet")
        return self._connection.welcome

    @property
    def chunk_bytes(self) -> int:
        """How much data the next chunk should have."""
        welcome = self.welcome
        window_bytes = max(welcome.window_bytes - CHUNK_OVERHEAD_BYTES, 1)
        return min(self._pace.chunk_bytes, welcome.chunk_bytes_max, window_bytes)

    async def open(self, request: frames.Open, handler: StreamHandler) -> int:
        """Open an upload; its events go to `handler` until `forget`. Raises LinkOver."""
        self._check()
        while self._leaving is not None:
            # The server answers no OPEN after GOAWAY (R15.1).
            await self.changed()
        try:
            number = self._connection.open(request)
        except LocalProtocolError as used_up:
            self._writer.transport.abort()
            raise LinkOver(self._end(Ending(str(used_up)))) from used_up
        self._streams.add(number, handler)
        self._flush()
        return number

    def query(self, name: str, handler: StreamHandler) -> int:
        """Ask how far a name is. Raises LinkOver."""
        self._check()
        number = self._streams.add_query(handler)
        self._connection.query(name, number)
        self._flush()
        return number

    def finish(self, number: int, finish: frames.Finish) -> None:
        """Say that all bytes were sent. Raises LinkOver."""
        self._check()
        self._connection.finish(number, finish)
        self._flush()

    def forget(self, number: int) -> None:
        """Discard further events of the stream."""
        self._streams.remove(number)

    async def chunk(self, number: int, start: int, data: Buffer, form: FrameType) -> bool:
        """Send a chunk once it is this stream's turn, and socket and window have room; the streams take turns.

        False if it was not sent because the stream has ended, or the server is going away. Raises LinkOver.
        """
        async with self._turn:
            await self._writable()
            while self._accepts_chunks(number) and self._connection.window_left_bytes < len(data):
                await self.changed()
            if not self._accepts_chunks(number):
                return False
            if self._is_drained():
                self._pace.begin(self._timing.clock())
            self._connection.chunk(number, start, data, form)
            self._flush()
        return True

    def now(self) -> float:
        """Monotonic seconds."""
        return self._timing.clock()

    async def changed(self, within_s: float | None = None) -> None:
        """Wait until something was received, or `within_s` have passed. Raises LinkOver."""
        self._check()
        if within_s is None:
            await self._change.wait()
        else:
            waits = [
                asyncio.ensure_future(self._change.wait()),
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

    async def _writable(self) -> None:
        """Wait until the socket should get more. Raises LinkOver."""
        try:
            await self._backpressure.writable(self._pace.unsent_bytes)
        except OSError:
            # Bytes received before the connection broke may say why: leave that to `_read`.
            while self.ending is None:
                await self.changed()

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
            return self._leaving or Ending("the server closed the connection without a reason")
        now_s = self._timing.clock()
        self._keepalive.heard(now_s)
        ending: Ending | None = None
        is_welcomed, unanswered_bytes = self._connection.welcome is not None, self._connection.unanswered_bytes
        for event in self._connection.receive(data):
            found = self._take(event)
            ending = ending or found
        if is_welcomed:
            self._pace.answered(unanswered_bytes - self._connection.unanswered_bytes, now_s)
        self._flush()
        self._notify()
        if self._leaving is not None and self._is_drained() and not self._streams.await_end:
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
                self._keepalive.interval_s = max(welcome.keepalive_s, 1)
                self._token_refresh.granted(welcome.authority_s)
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
                self._token_refresh.granted(authority_s)
            case Answered(frame=frames.Goaway(code, reconnect_ms, text)):
                self._leaving = Ending(explain(code, text), Action.WAIT, code, reconnect_ms)
                self._leave_by = self._timing.clock() + LINGER_S
            case Acknowledged() | Answered() | Failed():
                self._streams.dispatch(event)
        return None

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
        while True:
            await self._timing.sleep(TICK_S)
            now_s = self._timing.clock()
            if self._leaving is not None and now_s >= self._leave_by:
                return self._leaving
            if self._keepalive.is_dead(now_s):
                return Ending(f"the server was silent for {self._keepalive.silence_s(now_s):.0f} s")
            if self._keepalive.take_ping(now_s):
                self._connection.ping(int(now_s) & 0xFFFFFFFF)
                self._flush()

    def _refresh(self, token: str) -> None:
        self._connection.refresh(token)
        self._flush()

    def _accepts_chunks(self, number: int) -> bool:
        self._check()
        return number in self._streams and self._leaving is None

    def _is_drained(self) -> bool:
        """Whether the server has answered for every byte that was sent."""
        return not self._connection.unanswered_bytes

    def _flush(self) -> None:
        data = self._connection.data_to_send()
        if data and not self._writer.is_closing():
            self._writer.write(b"".join(data))

    def _notify(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _end(self, ending: Ending) -> Ending:
        if self.ending is None:
            self.ending = self._on_end(ending)
            self._notify()
        return self.ending

    def _check(self) -> None:
        if self.ending is not None:
            raise LinkOver(self.ending)
