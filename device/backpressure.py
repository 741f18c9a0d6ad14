"""The way out of a connection, kept short: whatever waits in it is lost, and sent again, when the connection breaks."""

import asyncio
import socket
from asyncio import StreamWriter


class Outlet:
    """Tells when a connection's socket has room for more.

    Sockets take far more than a slow link carries, and are ready for more only by what they have not sent yet:
    TCP_NOTSENT_LOWAT, where the system has it. `close` must come before the connection's own, which waits for it.
    """

    def __init__(self, writer: StreamWriter) -> None:
        # Not 0: asyncio's TLS transport would take an empty buffer for one that is too full.
        writer.transport.set_write_buffer_limits(high=1, low=0)
        self._writer = writer
        self._unsent_bytes = 0
        self._is_ready = asyncio.Event()
        # asyncio lets nobody else wait for a descriptor of its own, so this is another one of the same socket.
        connected = writer.get_extra_info("socket")
        self._socket: socket.socket | None = None
        if connected is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            self._socket = connected.dup()

    async def room(self, unsent_bytes: int) -> None:
        """Until less than half of `unsent_bytes` waits for TCP to send it. Raises OSError when the connection broke."""
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
        """Wait for nothing more; who waits is told that there is room."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._is_ready.set()
