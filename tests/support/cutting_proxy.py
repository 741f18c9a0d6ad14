"""A link that breaks: a TCP proxy on loopback that cuts connections at random byte counts, of either direction."""

import asyncio
import contextlib
import random
import socket
import struct
import sys
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

READ_BYTES_MAX = 64 * 1024

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: close(2) then sends a reset and drops what was not sent."""


class Direction(Enum):
    UP = "device to server"
    DOWN = "server to device"


class Kind(Enum):
    """How a connection ends: a reset may overtake bytes already forwarded, as on a real link; a close does not."""

    RESET = "reset"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Cut:
    """One break: exactly `after_bytes` of `direction` were forwarded, counted from the connection's start."""

    direction: Direction
    after_bytes: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Span:
    """Byte counts to draw from, both inclusive."""

    bytes_min: int
    bytes_max: int


class CuttingProxy:
    """Forwards from a free port of loopback to `upstream`, and cuts connections until there were `cuts_max` cuts.

    When each is cut is drawn as it opens: a byte count from `up`, one from `down`, of which the first that is reached
    counts, and the kind. One seed of `rng` gives one sequence of draws. The spans differ because a device sends
    megabytes and hears a few frames. No connection forwards more than `up.bytes_max` while there are cuts to come.
    """

    def __init__(
        self, upstream: tuple[str, int], rng: random.Random, *, up: Span, down: Span, cuts_max: int | None = None
    ) -> None:
        self._upstream = upstream
        self._rng = rng
        self._spans = {Direction.UP: up, Direction.DOWN: down}
        self._cuts_max = cuts_max
        self._cuts: list[Cut] = []
        self._forwarded = dict.fromkeys(Direction, 0)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The cuts that happened, in their order."""
        return tuple(self._cuts)

    @property
    def address(self) -> tuple[str, int]:
        """Where the device connects, while the proxy is entered."""
        if self._server is None:
            raise RuntimeError("the proxy is not open: enter it with `async with`")
        host, port = self._server.sockets[0].getsockname()
        return host, port

    def forwarded_bytes(self, direction: Direction) -> int:
        """Bytes passed on so far, over all connections."""
        return self._forwarded[direction]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._server = None

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("asyncio calls this in a task of its own")
        self._connections.add(task)
        try:
            # Only leaving the proxy cancels; asyncio would report a handler that ends as cancelled.
            with contextlib.suppress(asyncio.CancelledError):
                await self._forward(reader, writer)
        finally:
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = (self._draw(direction) for direction in (Direction.UP, Direction.DOWN))
        kind = self._rng.choice(tuple(Kind))
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            # A server that is down looks to the device as it would without the proxy.
            _end(writer, Kind.RESET)
            return
        except asyncio.CancelledError:
            _end(writer, Kind.RESET)
            raise
        ending = Kind.RESET
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(Cut(Direction.UP, up, kind), reader, upstream_writer))
                pumps.create_task(self._pump(Cut(Direction.DOWN, down, kind), upstream_reader, writer))
            ending = Kind.CLOSE
        except* OSError:
            # One end was reset, and so the other is.
            ending = Kind.RESET
        except* _CutDue:
            ending = kind
        finally:
            _end(writer, ending)
            _end(upstream_writer, ending)

    def _draw(self, direction: Direction) -> int:
        span = self._spans[direction]
        return self._rng.randint(span.bytes_min, span.bytes_max)

    async def _pump(self, cut: Cut, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Forward until the source ends, and half close the sink then. Raises _CutDue when the cut is due."""
        left = cut.after_bytes
        while data := await source.read(min(READ_BYTES_MAX, left)):
            sink.write(data)
            self._forwarded[cut.direction] += len(data)
            await sink.drain()
            left -= len(data)
            if left == 0:
                if self._cuts_max is None or len(self._cuts) < self._cuts_max:
                    self._cuts.append(cut)
                    raise _CutDue
                left = sys.maxsize
        sink.write_eof()


class _CutDue(Exception):
    """The drawn number of bytes was forwarded."""


def _end(writer: asyncio.StreamWriter, kind: Kind) -> None:
    if kind is Kind.CLOSE:
        writer.close()
        return
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None:
        # The peer may have reset it already, and then there is nothing left to set.
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
