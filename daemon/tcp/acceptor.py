"""Listening sockets: their options, and accepting from them.

The daemon accepts by itself, not by the event loop's server: only so is a link counted before its TLS handshake, and
only so does a shortage of descriptors make it wait. uvloop's server closes the links that it cannot take, or itself.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import TypeAlias

SockAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""Of IPv4, or of IPv6 with flow and zone."""

Accepted: TypeAlias = Callable[[socket.socket, SockAddress], None]
"""Takes over a link from this address."""

ACCEPT_BATCH = 16
"""Links accepted from one listener before other work gets its turn. With 64, ten thousand that came at once took 3 MiB
more memory; with 4, a fifth more time."""

PAUSE_S = 0.5
"""How long nothing is accepted after a failure. New links wait in the kernel's queue, so a short pause costs little."""

LINK_ERRORS = frozenset(
    {
        *(errno.ECONNABORTED, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPERM),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET),
    }
)
"""What accept(2) reports of the link it would have returned. The next one may be sound."""


class Acceptor:
    """Accepts links from all listeners, in batches, and waits `pause_s` after a failure such as EMFILE."""

    __slots__ = ("_failed", "_is_failing", "_listeners", "_pause", "_pause_s")

    def __init__(self, failed: Callable[[OSError, float], None], pause_s: float = PAUSE_S) -> None:
        """`failed` is called with the seconds of the pause, once for each row of failures."""
        self._failed = failed
        self._pause_s = pause_s
        self._pause: asyncio.TimerHandle | None = None
        self._is_failing = False
        self._listeners: dict[socket.socket, Accepted] = {}

    def listen(self, listener: socket.socket, backlog: int, accepted: Accepted) -> None:
        """Accept from a bound socket, which is closed by `close`. `accepted` owns the links. Raises OSError."""
        listener.setblocking(False)
        listener.listen(backlog)
        self._listeners[listener] = accepted
        self._watch(listener)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every listener."""
        return [(name[0], name[1]) for name in (each.getsockname() for each in self._listeners)]

    def close(self) -> None:
        """Accept no more, and close the listeners."""
        self._stop()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for each in self._listeners:
            each.close()
        self._listeners.clear()

    def _watch(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _stop(self) -> None:
        for each in self._listeners:
            asyncio.get_running_loop().remove_reader(each)

    def _resume(self) -> None:
        self._pause = None
        for each in self._listeners:
            self._watch(each)

    def _accept(self, listener: socket.socket) -> None:
        accepted = self._listeners[listener]
        for _ in range(ACCEPT_BATCH):
            try:
                link, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in LINK_ERRORS:
                    continue
                self._stop()
                self._pause = asyncio.get_running_loop().call_later(self._pause_s, self._resume)
                if not self._is_failing:
                    self._is_failing = True
                    self._failed(error, self._pause_s)
                return
            self._is_failing = False
            link.setblocking(False)
            accepted(link, address)


async def attach(
    link: socket.socket, protocol: asyncio.BaseProtocol, tls: ssl.SSLContext | None, timeout_s: float
) -> None:
    """Let `protocol` use the link, after a TLS handshake where there is `tls`. Raises OSError when that fails."""
    await asyncio.get_running_loop().connect_accepted_socket(
        lambda: protocol, link, ssl=tls, ssl_handshake_timeout=timeout_s if tls else None
    )


def hang_up(link: socket.socket) -> None:
    """End a link that has no transport yet: whoever attaches it finds it at its end."""
    with contextlib.suppress(OSError):  # the peer was faster
        link.shutdown(socket.SHUT_RDWR)


def bind(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`. Raises OSError that names the address."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    for family, kind, _, _, address in dict.fromkeys(found):
        each = socket.socket(family, kind)
        sockets.append(each)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            each.bind(address)
            each.listen(backlog)
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    return sockets


def keep_alive(listener: socket.socket, keepalive_s: float, user_timeout_s: float) -> None:
    """Set what accepted connections inherit: TCP probes, and how long data may stay unacknowledged. 0 turns it off."""
    if keepalive_s:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(int(keepalive_s), 1))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(int(keepalive_s / 3), 1))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    if user_timeout_s:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_s * 1000))
