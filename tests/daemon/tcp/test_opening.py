"""How a link begins: the PROXY header, and TLS behind it; real sockets, and the header byte by byte."""

import asyncio
import ssl
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from daemon.tcp.acceptor import SockAddress
from daemon.tcp.opening import Opening, peer_of
from daemon.tcp.proxy_header import SIGNATURE, PeerAddress, ProxyInvalid
from daemon.telemetry.metrics import CloseReason, ConnectionPhase
from protocol import codec, frames
from tests.support.certificates import Certificate, make_certificate
from tests.support.deadlines import DEADLINE_S
from tests.support.device_site import PROXY_V2, SETTINGS, Listening, listening, on_uvloop, policy_of
from tests.support.raw_device import Wire, heard_all, token_hello, whole_upload
from tests.support.waiting import until

LOCAL_V2 = SIGNATURE + struct.pack(">BBH", 0x20, 0, 0)
PROXY = PeerAddress(IPv4Address("127.0.0.1"), 5000)


def opening(*, is_proxied: bool = True, tls: ssl.SSLContext | None = None) -> Opening:
    return Opening(PROXY, is_proxied=is_proxied, tls=tls, timeout_s=10, now=0, hang_up=lambda: None)


def test_only_bytes_of_the_header_are_asked_for() -> None:
    link, rest = opening(), PROXY_V2 + b"TLS"
    while link.missing_bytes:
        taken, rest = rest[: link.missing_bytes], rest[link.missing_bytes :]
        is_whole = link.take_header(taken)
    assert is_whole
    assert rest == b"TLS"
    assert link.peer == PeerAddress(IPv4Address("10.0.0.7"), 4000)


def test_where_no_header_is_expected_none_is_missing() -> None:
    assert opening(is_proxied=False).missing_bytes == 0


def test_a_header_without_addresses_leaves_the_proxy_as_the_peer() -> None:
    link = opening()
    assert link.take_header(LOCAL_V2)
    assert link.peer == PROXY


def test_anything_else_is_refused_at_its_first_byte() -> None:
    with pytest.raises(ProxyInvalid):
        opening().take_header(b"\x16")


def test_it_may_take_its_time_and_no_longer() -> None:
    assert not opening().is_late(10)
    assert opening().is_late(10.1)


def test_what_it_waits_for_is_its_phase() -> None:
    link = opening(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    phases = [link.phase]
    link.take_header(PROXY_V2)
    phases += [link.phase, opening(is_proxied=False).phase]
    assert phases == [ConnectionPhase.PROXY, ConnectionPhase.TLS, ConnectionPhase.HANDSHAKE]


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.1", 5000), PeerAddress(IPv4Address("192.0.2.1"), 5000)),
        (("fe80::1%eth0", 5000, 0, 2), PeerAddress(IPv6Address("fe80::1"), 5000)),
        (("::ffff:192.0.2.1", 5000, 0, 0), PeerAddress(IPv4Address("192.0.2.1"), 5000)),
    ],
)
def test_the_other_end_of_a_link(address: SockAddress, peer: PeerAddress) -> None:
    assert peer_of(address) == peer


def sources(site: Listening) -> list[str]:
    """Where the admitted connections come from."""
    return list(site.server._places._sources)


def closed(site: Listening, reason: CloseReason) -> int:
    return site.site.bench.metrics.connections_closed[reason]


@on_uvloop
class TestProxy:
    @pytest.mark.parametrize("sizes", [[1] * 40, [15], [16], [27], [28], [29], []])
    async def test_the_header_names_the_device_however_it_is_split(self, sizes: list[int]) -> None:
        async with listening(policy_of(proxied=True)) as site:
            wire = await site.connect()
            data = PROXY_V2 + whole_upload(site.site.token())
            for size in sizes:
                wire.send(data[:size])
                data = data[size:]
                await asyncio.sleep(0)
            wire.send(data)
            await heard_all(wire)
            assert sources(site) == ["10.0.0.7"]

    async def test_a_proxys_own_check_counts_as_the_proxy(self) -> None:
        async with listening(policy_of(proxied=True)) as site:
            wire = await site.connect()
            wire.send(LOCAL_V2 + codec.encode(token_hello(site.site.token())))
            await wire.hear(frames.Welcome)
            assert sources(site) == ["127.0.0.1"]

    async def test_a_link_without_a_header_is_dropped_without_an_answer(self) -> None:
        async with listening(policy_of(proxied=True)) as site:
            wire = await site.connect()
            wire.say(token_hello(site.site.token()))
            await wire.dropped()
            await until(lambda: closed(site, CloseReason.PROXY_INVALID) == 1)

    async def test_an_untrusted_proxy_is_dropped_at_once(self) -> None:
        policy = replace(policy_of(proxied=True), proxy_trusted=(ip_network("10.0.0.0/8"),))
        async with listening(policy) as site:
            await (await site.connect()).dropped()
            await until(lambda: closed(site, CloseReason.PROXY_INVALID) == 1)

    async def test_a_header_that_takes_too_long_drops_the_link(self) -> None:
        async with listening(policy_of(proxied=True)) as site:
            wire = await site.connect()
            wire.send(PROXY_V2[:20])
            await until(lambda: site.connections)
            await site.pass_s(SETTINGS.limits.handshake_timeout_s)
            assert site.connections == 1
            await site.pass_s(1)
            await wire.dropped()
            await until(lambda: closed(site, CloseReason.TIMEOUT) == 1)

    async def test_a_header_that_breaks_off_makes_no_session(self) -> None:
        async with listening(policy_of(proxied=True)) as site:
            wire = await site.connect()
            wire.send(PROXY_V2[:20])
            wire.end()
            await wire.ended()
            await until(lambda: site.connections == 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@on_uvloop
class TestTls:
    async def test_the_header_of_a_proxy_comes_before_it(self, certificate: Certificate) -> None:
        async with listening(policy_of(proxied=True), tls=contexts(certificate)) as site:
            reader, writer = await asyncio.open_connection(*site.address)
            writer.write(PROXY_V2)
            tls, site.tls = site.tls, None
            assert tls is not None
            await writer.start_tls(tls, server_hostname="127.0.0.1")
            wire = Wire(reader, writer)
            site.wires.append(wire)
            wire.send(whole_upload(site.site.token()))
            await heard_all(wire)
            assert sources(site) == ["10.0.0.7"]

    async def test_a_handshake_that_is_no_tls_ends_the_link(self, certificate: Certificate) -> None:
        async with listening(policy_of(proxied=True), tls=contexts(certificate)) as site:
            reader, writer = await asyncio.open_connection(*site.address)
            writer.write(PROXY_V2 + b"\x01no TLS")
            async with asyncio.timeout(DEADLINE_S):
                await reader.read()
            writer.transport.abort()
            await until(lambda: site.connections == 0)
            assert closed(site, CloseReason.TLS_FAILED) == 1


def contexts(certificate: Certificate) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and that of a device that trusts it."""
    device = ssl.create_default_context(cafile=certificate.path)
    return certificate.server_context(), device
