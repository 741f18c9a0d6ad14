"""A breaking link: a TCP proxy on loopback that cuts connections after random byte counts in either direction."""

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
"""SO_LINGER of 0 s: close(2) then sends a reset and drops unsent data."""


class Direction(Enum):
    UP = "device to server"
    DOWN = "server to device"


class Kind(Enum):
    """How a connection ends. A reset may overtake bytes already forwarded, as on a real link; a close does not."""

    RESET = "reset"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut, after exactly `after_bytes` in `direction`, counted from the connection's start."""

    direction: Direction
    after_bytes: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Span:
    """The range of byte counts to draw from, both ends inclusive."""

    bytes_min: int
    bytes_max: int


class CuttingProxy:
    """Forwards from a free loopback port to `upstream`, and cuts connections, `cuts_max` times in all.

    When a connection opens, the proxy draws a byte count from `up`, one from `down`, and the kind. The count that is
    reached first cuts the connection. A seed of `rng` determines all draws. The spans differ because a device sends
    megabytes and receives a few frames. While cuts remain, no connection forwards more than `up.bytes_max`.
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
        """The cuts so far, in order."""
        return tuple(self._cuts)

    @property
    def address(self) -> tuple[str, int]:
        """Where the device connects, while the proxy is open."""
        if self._server is None:
            raise RuntimeError("the proxy is not open: enter it with `async with`")
        host, port = self._server.sockets[0].getsockname()
        return host, port

    def forwarded_bytes(self, direction: Direction) -> int:
        """Bytes forwarded so far, over all connections."""
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
            # Only leaving the proxy cancels this task. asyncio would report a handler that ends as cancelled.
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
            # If the server is down, the device sees what it would see without the proxy.
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
            # One end was reset, so reset the other.
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
        """Forward until the source ends, then half-close the sink. Raises _CutDue when the cut is due."""
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
        # The peer may have reset it already. Then there is nothing left to set.
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
