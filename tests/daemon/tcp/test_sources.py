"""What limits by address count."""

from ipaddress import ip_address

import pytest

from daemon.tcp.proxy_header import PeerAddress
from daemon.tcp.sources import UNKNOWN, source_of


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
    ],
)
def test_an_ipv4_address_or_a_network_of_ipv6(address: str, source: str) -> None:
    assert source_of(PeerAddress(ip_address(address), 5000)) == source


def test_a_peer_without_an_address() -> None:
    assert source_of(None) == UNKNOWN
