"""Where connections come from, for limits by address."""

from daemon.tcp.proxy_header import PeerAddress

UNKNOWN = ""
"""The source of a peer whose address the socket does not tell."""

NETWORK_BITS = 64
"""Of an IPv6 address. Whoever has a network has all of its 2^64 addresses, and no provider gives less."""


def source_of(peer: PeerAddress | None) -> str:
    """What limits by address count: an IPv4 address, or the network of 64 bits of an IPv6 address."""
    if peer is None:
        return UNKNOWN
    if peer.address.version == 4:
        return str(peer.address)
    host_bits = peer.address.max_prefixlen - NETWORK_BITS
    network = type(peer.address)(int(peer.address) >> host_bits << host_bits)
    return f"{network}/{NETWORK_BITS}"
