"""TLS on a real daemon's device port: ALPN, versions, and certificates that are renewed during uploads."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from device.client import Uplink
from device.credentials import TokenCredentials
from protocol import frames
from protocol.constants import ALPN, HANDSHAKE_FRAME_BYTES_MAX, FrameType
from protocol.errors import ErrorCode
from tests.support.certificates import Certificate, make_certificate
from tests.support.raw_device import Wire, open_request, raw
from tests.support.scene import Scene, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> AsyncIterator[Scene]:
    settings = {
        "LISTEN__TLS_CERTIFICATE": str(certificate.path),
        "LISTEN__TLS_KEY": str(certificate.key_path),
        "LIMITS__HANDSHAKE_TIMEOUT_S": "10",
    }
    async with scene(tmp_path_factory.mktemp("tls") / "data", settings) as running:
        yield running


def trusting(path: Path, protocols: tuple[str, ...] = (ALPN,)) -> ssl.SSLContext:
    """The TLS context of a device that trusts only this certificate."""
    context = ssl.create_default_context(cafile=str(path))
    context.set_alpn_protocols(list(protocols))
    return context


async def test_alpn_selects_the_protocol(live: Scene, certificate: Certificate) -> None:
    async with await Wire.admitted(live.address, live.token("cam"), tls=trusting(certificate.path)) as wire:
        assert wire.tls is not None
        assert wire.tls.selected_alpn_protocol() == ALPN
        assert wire.tls.version() in {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_versions_before_tls_1_2_are_refused(
    live: Scene, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    context = trusting(certificate.path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await Wire.connect(live.address, tls=context)


@pytest.mark.parametrize("size", [0, 3_000_000])
async def test_a_file_arrives_complete(live: Scene, certificate: Certificate, size: int) -> None:
    data = bytes(range(256)) * (size // 256)
    tls = trusting(certificate.path)
    async with Uplink(*live.address, TokenCredentials(live.token("cam")), tls=tls) as uplink:
        sent = await uplink.send(data, f"{size}.bin")
    answer = await live.http.get(f"/v1/files/{sent.upload_id:016x}/content", token=live.operator)
    assert answer.body == data


async def test_a_refusal_can_be_read(live: Scene, certificate: Certificate) -> None:
    async with await Wire.connect(live.address, tls=trusting(certificate.path)) as wire:
        wire.send(raw(FrameType.HELLO, b"", length=HANDSHAKE_FRAME_BYTES_MAX) + bytes(100_000))
        assert (await wire.hear(frames.Refused)).code == ErrorCode.FRAME_TOO_LARGE
        await wire.ended()


async def test_a_client_without_tls_is_dropped_without_disturbing_others(live: Scene, certificate: Certificate) -> None:
    async with await Wire.admitted(live.address, live.token("cam"), tls=trusting(certificate.path)) as wire:
        for data in (b"GET / HTTP/1.1\r\n\r\n", raw(FrameType.HELLO, b"UPLK")):
            async with await Wire.connect(live.address) as stranger:
                stranger.send(data)
                await stranger.dropped()
        await wire.open(1, open_request("undisturbed.bin", 10))
        await wire.upload(1, 0, bytes(10))


async def test_a_client_that_sends_nothing_is_dropped_after_the_handshake_timeout(live: Scene) -> None:
    async with await Wire.connect(live.address) as stranger:
        await stranger.dropped()


async def test_a_certificate_is_renewed_while_connections_continue(
    live: Scene, certificate: Certificate, tmp_path: Path
) -> None:
    old_trust = trusting(certificate.path)
    token = live.token("cam")
    async with await Wire.admitted(live.address, token, tls=old_trust) as wire:
        await wire.open(1, open_request("renewed.bin", 20))
        await wire.upload(1, 0, bytes(10))
        await asyncio.to_thread(make_certificate, certificate.path.parent)
        before = len(live.daemon.log)
        live.daemon.process.send_signal(signal.SIGHUP)
        await live.until_logged(lambda line: "settings reloaded" in line, since=before)
        with pytest.raises(ssl.SSLCertVerificationError):
            await Wire.connect(live.address, tls=old_trust)
        async with await Wire.admitted(live.address, token, tls=trusting(certificate.path)) as second:
            await second.open(1, open_request("after.bin", 10))
        await wire.upload(1, 10, bytes(10))
        wire.say(frames.Finish(20), 1)
        await wire.hear(frames.Finished, 1)
