"""Keeps little in the socket: what waits there is lost, and sent again, when the connection breaks."""

import asyncio
import socket
from asyncio import StreamWriter


class Backpressure:
    """Waits until a connection's socket should get more.

    A socket buffers far more than a slow link carries. TCP_NOTSENT_LOWAT, where the system has it, reports the socket
    as writable by the bytes that TCP has not sent yet. Call `close` before the connection's own, which would wait.
    """

    def __init__(self, writer: StreamWriter) -> None:
        # Not 0: asyncio's TLS transport takes an empty buffer for one that is too full.
        writer.transport.set_write_buffer_limits(high=1, low=0)
        self._writer = writer
        self._unsent_bytes = 0
        self._is_ready = asyncio.Event()
        # asyncio refuses callbacks on a transport's own descriptor, so wait on a duplicate.
        connected = writer.get_extra_info("socket")
        self._socket: socket.socket | None = None
        if connected is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            self._socket = connected.dup()

    async def writable(self, unsent_bytes: int) -> None:
        """Wait until TCP has less than half of `unsent_bytes` to send. Raises OSError when the connection broke."""
        await self._writer.drain()
        if self._socket is None:
            return
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes = unsent_bytes
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)
        loop, descriptor = asyncio.get_running_loop(), self._socket.fileno()
        self._is_ready.clear()
        loop.add_writer(descriptor, self._is_ready.set)
        try:
            await self._is_ready.wait()
        finally:
            if self._socket is not None:
                loop.remove_writer(descriptor)

    def close(self) -> None:
        """Stop waiting: a pending `writable` returns."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._is_ready.set()
