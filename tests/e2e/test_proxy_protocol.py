"""A real daemon behind a proxy that sends the devices' addresses in PROXY headers."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from protocol import frames
from protocol.constants import ALPN
from protocol.errors import ErrorCode
from tests.support.certificates import make_certificate
from tests.support.raw_device import Wire, open_request, token_hello
from tests.support.scene import Scene, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRUSTED, UNTRUSTED = ("127.0.0.2", 0), ("127.0.0.3", 0)
"""Local addresses of the trusted proxy and of another client."""

PER_IP_MAX = 2

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def header(source: str, port: int, fields: bytes = b"") -> bytes:
    """The PROXY header of version 2 for a connection over IPv4 or IPv6."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    packed = socket.inet_pton(family, source)
    addresses = packed + packed + struct.pack(">HH", port, 7710)
    kind = b"\x21\x21" if family is socket.AF_INET6 else b"\x21\x11"
    return SIGNATURE + kind + struct.pack(">H", len(addresses + fields)) + addresses + fields


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    settings = {
        "LISTEN__PROXY_PROTOCOL": "true",
        "LISTEN__PROXY_TRUSTED": "127.0.0.2/32",
        "LIMITS__CONNECTIONS_PER_IP_MAX": str(PER_IP_MAX),
        "LIMITS__HANDSHAKE_TIMEOUT_S": "10",
        "LOG__LEVEL": "debug",
    }
    async with scene(tmp_path_factory.mktemp("proxy") / "data", settings) as running:
        yield running


@pytest.mark.parametrize(("source", "fields"), [("198.51.100.7", b""), ("2001:db8::7", b"\x04\0\x03abc")])
async def test_the_log_shows_the_devices_address(live: Scene, source: str, fields: bytes) -> None:
    async with await Wire.connect(live.address, local=TRUSTED) as wire:
        wire.send(header(source, 4242, fields))
        wire.say(token_hello(live.token("cam")))
        welcome = await wire.hear(frames.Welcome)
        line = await live.until_logged(lambda line: "device let in" in line and f"{welcome.connection_id:016x}" in line)
        assert json.loads(line)["peer"] == f"{source}:4242"


async def test_a_header_may_arrive_in_pieces_followed_by_the_devices_bytes(live: Scene) -> None:
    async with await Wire.connect(live.address, local=TRUSTED) as wire:
        whole = header("198.51.100.8", 1)
        wire.send(whole[:5])
        await wire.sent()
        wire.send(whole[5:20])
        await wire.sent()
        wire.send(whole[20:])
        wire.say(token_hello(live.token("cam")))
        wire.say(open_request("behind.bin"), 1)
        await wire.hear(frames.Welcome)
        await wire.hear(frames.Opened, 1)


async def test_an_untrusted_client_is_dropped_even_with_a_valid_header(live: Scene) -> None:
    async with await Wire.connect(live.address, local=UNTRUSTED) as wire:
        wire.send(header("198.51.100.9", 1))
        await wire.dropped()


@pytest.mark.parametrize(
    "data",
    [b"PROXY TCP4 198.51.100.7 198.51.100.7 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c" + bytes(12), b"UPLK"],
    ids=["version 1", "version 3", "no header"],
)
async def test_an_invalid_header_is_dropped_without_an_answer(live: Scene, data: bytes) -> None:
    async with await Wire.connect(live.address, local=TRUSTED) as wire:
        wire.send(data)
        await wire.dropped()


async def test_a_device_without_a_header_is_dropped(live: Scene) -> None:
    async with await Wire.connect(live.address, local=TRUSTED) as wire:
        wire.say(token_hello(live.token("cam")))
        await wire.dropped()


async def test_a_header_that_stays_incomplete_is_dropped_after_the_handshake_timeout(live: Scene) -> None:
    async with await Wire.connect(live.address, local=TRUSTED) as wire:
        wire.send(SIGNATURE[:6])
        await wire.dropped()


async def test_limits_per_address_count_devices_and_not_the_proxy(live: Scene) -> None:
    wires = []
    for number in range(2 * PER_IP_MAX):
        wires.append(await Wire.connect(live.address, local=TRUSTED))
        wires[-1].send(header(f"203.0.113.{number % 2}", number))
        wires[-1].say(token_hello(live.token("cam")))
        await wires[-1].hear(frames.Welcome)
    async with await Wire.connect(live.address, local=TRUSTED) as wire:
        wire.send(header("203.0.113.0", 99))
        wire.say(token_hello(live.token("cam")))
        assert (await wire.hear(frames.Refused)).code == ErrorCode.TOO_MANY_CONNECTIONS
    for each in wires:
        each.hang_up()


async def test_the_header_precedes_the_tls_handshake(tmp_path: Path) -> None:
    certificate = await asyncio.to_thread(make_certificate, tmp_path)
    settings = {
        "LISTEN__PROXY_PROTOCOL": "true",
        "LISTEN__PROXY_TRUSTED": "127.0.0.2/32",
        "LISTEN__TLS_CERTIFICATE": str(certificate.path),
        "LISTEN__TLS_KEY": str(certificate.key_path),
        "LOG__LEVEL": "debug",
    }
    tls = ssl.create_default_context(cafile=str(certificate.path))
    tls.set_alpn_protocols([ALPN])
    async with scene(tmp_path / "data", settings) as live:
        for number in range(5):
            async with await Wire.connect(live.address, local=TRUSTED) as wire:
                wire.send(header("198.51.100.7", 5000 + number))
                await wire.secure(tls)
                wire.say(token_hello(live.token("cam")))
                await wire.hear(frames.Welcome)
                await until_peer(live, f"198.51.100.7:{5000 + number}")


async def until_peer(live: Scene, peer: str) -> None:
    """Wait until the log names this peer."""
    await live.until_logged(lambda line: f'"peer": "{peer}"' in line)
