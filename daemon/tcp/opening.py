"""How a link begins: with a PROXY header where one is expected, then TLS where it is configured."""

import asyncio
import ssl
from collections.abc import Callable
from ipaddress import ip_address

from daemon.tcp.acceptor import SockAddress
from daemon.tcp.proxy_header import NeedMore, PeerAddress, ProxyHeader, parse
from daemon.telemetry.metrics import ConnectionPhase


def peer_of(address: SockAddress) -> PeerAddress:
    """The other end of an accepted link."""
    # A link-local address carries its zone, which is neither shown nor counted.
    return PeerAddress(ip_address(address[0].partition("%")[0]), address[1])


class Opening:
    """A link before its first frame.

    `missing_bytes` of the PROXY header may be read next, and no more: what follows belongs to the TLS handshake, which
    looks for it in the socket. 0 once the header is whole, or where none is expected.
    """

    __slots__ = ("_preface", "_timeout_s", "began_s", "hang_up", "missing_bytes", "peer", "tls")

    def __init__(
        self,
        peer: PeerAddress,
        *,
        is_proxied: bool,
        tls: ssl.SSLContext | None,
        timeout_s: float,
        now: float,
        hang_up: Callable[[], None],
    ) -> None:
        """Header, TLS and HELLO together may take `timeout_s` from `now`. `tls` is None for plain TCP.

        `hang_up` ends the link as long as it has no transport.
        """
        self.peer = peer
        """Who connected: the proxy, until its header names the device."""
        self.tls = tls
        self.hang_up = hang_up
        self.began_s = now
        self._timeout_s = timeout_s
        self._preface = b""
        self.missing_bytes = _missing(parse(b"")) if is_proxied else 0

    @property
    def phase(self) -> ConnectionPhase:
        """What is awaited."""
        if self.missing_bytes:
            return ConnectionPhase.PROXY
        return ConnectionPhase.HANDSHAKE if self.tls is None else ConnectionPhase.TLS

    def is_late(self, now: float) -> bool:
        """Whether the opening has taken too long."""
        return now - self.began_s > self._timeout_s

    def take_header(self, data: bytes) -> bool:
        """Add bytes of the PROXY header; whether it is whole, and `peer` the device. Raises ProxyInvalid."""
        self._preface += data
        header = parse(self._preface)
        self.missing_bytes = _missing(header)
        if not isinstance(header, ProxyHeader):
            return False
        self.peer = header.source or self.peer
        return True


async def secure(
    transport: asyncio.Transport, protocol: asyncio.BaseProtocol, tls: ssl.SSLContext, timeout_s: float
) -> asyncio.Transport | None:
    """The transport inside TLS, on which `protocol` goes on; None when the link has ended. Raises OSError."""
    if transport.is_closing():
        return None
    secured = await asyncio.get_running_loop().start_tls(
        transport, protocol, tls, server_side=True, ssl_handshake_timeout=timeout_s
    )
    # asyncio reports a link that ends during the handshake neither here nor to the protocol.
    return None if transport.is_closing() else secured


def _missing(header: ProxyHeader | NeedMore) -> int:
    return header.missing_bytes if isinstance(header, NeedMore) else 0
