"""PROXY protocol version 2: the header in which a load balancer names the device's address. Bytes in, values out.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2. The caller decides which proxies to trust, and
how long a header may take.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""Begins every version 2 header; chosen so that no HTTP, SMTP or TLS peer sends it by accident."""

HEADER_BYTES_MAX = 536
"""The specification sizes headers for the smallest TCP segment that every host takes (576 - 40 bytes), and a stranger
gets no more memory than that. Addresses need 52 bytes at most; the rest is for the proxy's optional fields."""

_FIXED = struct.Struct(">12sBBH")  # signature, version and command, family and transport, bytes that follow
_VERSION = 2


class _Command(IntEnum):
    LOCAL = 0
    PROXY = 1


class _Family(IntEnum):
    """Address family and transport, in one byte: all combinations that the specification knows."""

    UNSPEC = 0x00
    TCP4 = 0x11
    UDP4 = 0x12
    TCP6 = 0x21
    UDP6 = 0x22
    UNIX_STREAM = 0x31
    UNIX_DATAGRAM = 0x32


_ADDRESSES: dict[_Family, tuple[struct.Struct, type[IPv4Address] | type[IPv6Address]]] = {
    _Family.TCP4: (struct.Struct(">4s4sHH"), IPv4Address),
    _Family.TCP6: (struct.Struct(">16s16sHH"), IPv6Address),
}
"""Source, destination, source port, destination port."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """One end of a TCP connection. An IPv4 address in IPv6 form, ::ffff:192.0.2.1, becomes the same in IPv4."""

    address: IPv4Address | IPv6Address
    port: int

    def __post_init__(self) -> None:
        if isinstance(self.address, IPv6Address) and self.address.ipv4_mapped is not None:
            object.__setattr__(self, "address", self.address.ipv4_mapped)


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header: `size_bytes` of the buffer are its own, the device's bytes follow.

    Without endpoints (a health check of the proxy itself, or addresses that are not of TCP over IP) those of the
    TCP connection stand.
    """

    size_bytes: int
    source: PeerAddress | None = None
    destination: PeerAddress | None = None


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The header is not whole: at least `missing_bytes` more belong to it."""

    missing_bytes: int


class ProxyInvalid(Exception):
    """The connection does not begin with a version 2 header: it must be closed without an answer."""


def parse(buffer: bytes) -> ProxyHeader | NeedMore:
    """The header at the start of `buffer`. Never asks for more than HEADER_BYTES_MAX in all. Raises ProxyInvalid.

    A wrong signature is refused at its first wrong byte, so no stranger is waited for. Optional fields are skipped.
    """
    begin = buffer[: len(SIGNATURE)]
    if not SIGNATURE.startswith(begin):
        found = "a version 1 header" if begin.startswith(b"PROXY") else begin.hex(" ")
        raise ProxyInvalid(
            f"expected the PROXY protocol's version 2 signature, found {found}: let the proxy send version 2, "
            f"or connect past it to a listener without proxy_protocol"
        )
    if len(buffer) < _FIXED.size:
        return NeedMore(_FIXED.size - len(buffer))
    _, version_command, family_byte, length = _FIXED.unpack_from(buffer)
    size_bytes = _FIXED.size + length
    command = _command(version_command)
    if size_bytes > HEADER_BYTES_MAX:
        raise ProxyInvalid(
            f"the PROXY header has {size_bytes} bytes, {HEADER_BYTES_MAX} are allowed: "
            f"let the proxy send fewer optional fields"
        )
    # The family of a LOCAL header is ignored, whatever it says.
    family = _Family.UNSPEC if command is _Command.LOCAL else _family(family_byte, length)
    if len(buffer) < size_bytes:
        return NeedMore(size_bytes - len(buffer))
    return _header(buffer, size_bytes, family)


def _command(version_command: int) -> _Command:
    version, command = version_command >> 4, version_command & 0x0F
    if version != _VERSION:
        raise ProxyInvalid(f"the PROXY header has version {version}, only {_VERSION} is understood")
    try:
        return _Command(command)
    except ValueError:
        raise ProxyInvalid(f"the PROXY header has the command {command}, which is not assigned") from None


def _family(family_byte: int, length: int) -> _Family:
    try:
        family = _Family(family_byte)
    except ValueError:
        raise ProxyInvalid(f"the PROXY header has the address family {family_byte:#04x}, unassigned") from None
    needed = _ADDRESSES[family][0].size if family in _ADDRESSES else 0
    if length < needed:
        raise ProxyInvalid(f"the PROXY header has {length} bytes for addresses of {family.name} that need {needed}")
    return family


def _header(buffer: bytes, size_bytes: int, family: _Family) -> ProxyHeader:
    """The endpoints of a header that is known to be whole. Families without a layout count as unspecified."""
    if family not in _ADDRESSES:
        return ProxyHeader(size_bytes)
    layout, address = _ADDRESSES[family]
    source, destination, source_port, destination_port = layout.unpack_from(buffer, _FIXED.size)
    return ProxyHeader(
        size_bytes, PeerAddress(address(source), source_port), PeerAddress(address(destination), destination_port)
    )
