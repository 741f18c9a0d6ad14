"""PROXY protocol version 2: what is understood, what is refused, and that nothing else happens."""

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.tcp.proxy_header import (
    HEADER_BYTES_MAX,
    SIGNATURE,
    NeedMore,
    PeerAddress,
    ProxyHeader,
    ProxyInvalid,
    parse,
)

LOCAL, PROXY = 0x20, 0x21
TCP4, UDP4, TCP6, UDP6, UNIX_STREAM, UNIX_DATAGRAM = 0x11, 0x12, 0x21, 0x22, 0x31, 0x32

ADDRESSES4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack(">HH", 40000, 7710)
ADDRESSES6 = IPv6Address("2001:db8::1").packed + IPv6Address("2001:db8::2").packed + struct.pack(">HH", 40000, 7710)
NOOP_TLV = bytes([0x04, 0, 3, 1, 2, 3])


def header(command: int, family: int, body: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


FROM4 = ProxyHeader(28, PeerAddress(IPv4Address("192.0.2.1"), 40000), PeerAddress(IPv4Address("198.51.100.2"), 7710))
FROM6 = ProxyHeader(52, PeerAddress(IPv6Address("2001:db8::1"), 40000), PeerAddress(IPv6Address("2001:db8::2"), 7710))


class TestUnderstood:
    def test_the_example_of_tcp_over_ipv4_in_hex(self) -> None:
        assert parse(bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000201 c6336402 9c40 1e1e")) == FROM4

    def test_tcp_over_ipv6(self) -> None:
        assert parse(header(PROXY, TCP6, ADDRESSES6)) == FROM6

    def test_what_follows_the_header_is_the_devices(self) -> None:
        assert parse(header(PROXY, TCP4, ADDRESSES4) + b"\x01HELLO") == FROM4

    @pytest.mark.parametrize("tlvs", [NOOP_TLV, NOOP_TLV * 3, b"\xff" * 40])
    def test_optional_fields_are_skipped(self, tlvs: bytes) -> None:
        found = parse(header(PROXY, TCP4, ADDRESSES4 + tlvs))
        assert found == ProxyHeader(28 + len(tlvs), FROM4.source, FROM4.destination)

    @pytest.mark.parametrize("family", [0x00, TCP4, UNIX_STREAM, 0x99])
    @pytest.mark.parametrize("body", [b"", ADDRESSES4, NOOP_TLV])
    def test_the_proxys_own_health_check_has_no_endpoints_whatever_else_it_says(self, family: int, body: bytes) -> None:
        assert parse(header(LOCAL, family, body)) == ProxyHeader(16 + len(body))

    @pytest.mark.parametrize("family", [0x00, UDP4, UDP6, UNIX_STREAM, UNIX_DATAGRAM])
    def test_addresses_that_are_not_of_tcp_over_ip_count_as_unspecified(self, family: int) -> None:
        assert parse(header(PROXY, family, b"\xaa" * 216)) == ProxyHeader(232)

    def test_a_header_as_large_as_allowed(self) -> None:
        assert parse(header(PROXY, 0x00, bytes(HEADER_BYTES_MAX - 16))) == ProxyHeader(HEADER_BYTES_MAX)


class TestNotWhole:
    @pytest.mark.parametrize(("size", "missing"), [(0, 16), (1, 15), (15, 1), (16, 12), (27, 1)])
    def test_it_says_how_much_is_missing(self, size: int, missing: int) -> None:
        assert parse(header(PROXY, TCP4, ADDRESSES4)[:size]) == NeedMore(missing)


class TestRefused:
    def test_version_1(self) -> None:
        with pytest.raises(ProxyInvalid, match="found a version 1 header: let the proxy send version 2"):
            parse(b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 7710\r\n")

    @pytest.mark.parametrize("begin", [b"P", b"\r\n\r\nX", b"\x01\x00\x00\x00", SIGNATURE[:-1] + b"\r"])
    def test_a_stranger_at_the_first_wrong_byte(self, begin: bytes) -> None:
        with pytest.raises(ProxyInvalid, match=f"found {begin.hex(' ')}: "):
            parse(begin)

    @pytest.mark.parametrize("version", [0, 1, 3, 15])
    def test_another_version(self, version: int) -> None:
        with pytest.raises(ProxyInvalid, match=f"has version {version}, only 2"):
            parse(header(version << 4 | 1, TCP4, ADDRESSES4))

    @pytest.mark.parametrize("command", [2, 15])
    def test_a_command_that_is_not_assigned(self, command: int) -> None:
        with pytest.raises(ProxyInvalid, match=f"command {command}, which is not assigned"):
            parse(header(0x20 | command, TCP4, ADDRESSES4))

    @pytest.mark.parametrize("family", [0x01, 0x10, 0x13, 0x20, 0x33, 0x41, 0xFF])
    def test_a_family_that_is_not_assigned(self, family: int) -> None:
        with pytest.raises(ProxyInvalid, match=f"address family {family:#04x}"):
            parse(header(PROXY, family, ADDRESSES6))

    @pytest.mark.parametrize(("family", "addresses"), [(TCP4, ADDRESSES4), (TCP6, ADDRESSES6)])
    def test_a_length_that_cuts_the_addresses(self, family: int, addresses: bytes) -> None:
        with pytest.raises(ProxyInvalid, match=f"that need {len(addresses)}"):
            parse(header(PROXY, family, addresses[:-1]))

    @pytest.mark.parametrize("command", [LOCAL, PROXY])
    def test_a_header_above_the_limit_before_it_has_arrived(self, command: int) -> None:
        with pytest.raises(ProxyInvalid, match="has 537 bytes, 536 are allowed"):
            parse(header(command, 0x00, bytes(HEADER_BYTES_MAX - 15))[:16])


heads = st.builds(
    header,
    st.one_of(st.sampled_from([LOCAL, PROXY]), st.integers(0, 255)),
    st.one_of(st.sampled_from([0, TCP4, UDP4, TCP6, UDP6, UNIX_STREAM, UNIX_DATAGRAM]), st.integers(0, 255)),
    st.binary(max_size=HEADER_BYTES_MAX),
)


class TestProperties:
    @given(st.one_of(st.binary(max_size=600), heads, st.builds(lambda tail: SIGNATURE + tail, st.binary(max_size=600))))
    def test_any_input_gives_a_header_a_wish_within_the_limit_or_a_refusal(self, data: bytes) -> None:
        with contextlib.suppress(ProxyInvalid):
            match parse(data):
                case ProxyHeader(size_bytes=size_bytes):
                    assert 16 <= size_bytes <= min(len(data), HEADER_BYTES_MAX)
                case NeedMore(missing_bytes=missing_bytes):
                    assert missing_bytes > 0
                    assert len(data) + missing_bytes <= HEADER_BYTES_MAX

    @given(heads, st.binary(max_size=20), st.integers(0, 600))
    def test_any_split_decides_the_same(self, head: bytes, tail: bytes, cut: int) -> None:
        def decide(data: bytes) -> ProxyHeader | NeedMore | None:
            try:
                return parse(data)
            except ProxyInvalid:
                return None

        whole = decide(head + tail)
        first = decide((head + tail)[:cut])
        assert isinstance(first, NeedMore) or first == whole
        assert not isinstance(whole, NeedMore)

    @given(heads)
    def test_asking_only_for_what_is_missing_ends(self, head: bytes) -> None:
        fed = 0
        with contextlib.suppress(ProxyInvalid):
            while isinstance(answer := parse(head[:fed]), NeedMore):
                fed += answer.missing_bytes
                assert fed <= len(head)
            assert answer.size_bytes == len(head) == fed
