"""What the kernel knows of a connection: how much waits to be sent, and how much the other side has taken."""

import fcntl
import socket
import struct
import termios
from dataclasses import dataclass

_TCP_INFO_BYTES = 128
_BYTES_ACKED_AT = 120
"""Offset of tcpi_bytes_acked in struct tcp_info (linux/tcp.h), an unsigned 64-bit number."""


@dataclass(frozen=True, slots=True)
class SocketState:
    """Bytes that the socket still has to deliver, and all that the other side has acknowledged so far."""

    unsent_bytes: int
    acked_bytes: int


def socket_state(fd: int) -> SocketState | None:
    """The state of a TCP socket; None for other sockets, and where the system does not tell."""
    waiting = bytearray(4)
    # Only for its methods: the descriptor stays the transport's.
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        fcntl.ioctl(fd, termios.TIOCOUTQ, waiting)
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    finally:
        borrowed.detach()
    if len(info) < _TCP_INFO_BYTES:
        return None
    return SocketState(*struct.unpack("=i", waiting), *struct.unpack_from("=Q", info, _BYTES_ACKED_AT))
