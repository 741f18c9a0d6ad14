"""Over a link that holds: files arrive, credentials are proven or refused, features are there or asked for in vain."""

import asyncio
import random
import ssl

import pytest

from device.client import Uplink
from device.credentials import SecretCredentials, TokenCredentials
from device.exceptions import UploadFailed
from protocol.constants import Feature, UploadState
from protocol.errors import ErrorCode
from protocol.handshake import device_key
from tests.device.conftest import Uplinks
from tests.support.certificates import Certificate
from tests.support.content import DATA
from tests.support.deadlines import DEADLINE_S
from tests.support.fake_server import FakeServer, Script
from tests.support.fake_time import FakeTime
from tests.support.welcomes import without


async def test_a_file_arrives_and_the_result_describes_it(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin")
        status = await uplink.status("log.bin")
    stored = server.files["log.bin"]
    assert stored.data == DATA
    assert (sent.upload_id, sent.name, sent.size, sent.crc32c) == (stored.id, "log.bin", len(DATA), stored.crc32c)
    assert (sent.resumes, sent.sent_bytes, sent.resent_bytes) == (0, len(DATA), 0)
    assert (status.state, status.next_expected_byte) == (UploadState.COMPLETE, len(DATA))
    hello = server.sessions[0].hello
    assert hello is not None
    assert (hello.hello.agent, hello.hello.agent_version, hello.hello.last_end) == ("uplink", "1.2", 0)


async def test_many_uploads_share_one_connection(server: FakeServer, uplinks: Uplinks) -> None:
    contents = {f"file-{n}": random.Random(n).randbytes(n * 20_011) for n in range(40)}
    async with uplinks(chunk_bytes=10_000) as uplink:
        await asyncio.gather(*(uplink.send(data, name) for name, data in contents.items()))
    assert {name: stored.data for name, stored in server.files.items()} == contents
    assert len(server.sessions) == 1


async def test_a_secret_is_proven(server: FakeServer, uplinks: Uplinks) -> None:
    secret = b"s" * 32
    server.device_key = device_key(secret)
    server.scripts.append(Script(challenge=b"c" * 32))
    async with uplinks(SecretCredentials("cam-1", secret)) as uplink:
        await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].state is UploadState.COMPLETE


async def test_a_wrong_secret_is_final(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(challenge=b"c" * 32))
    async with uplinks(SecretCredentials("cam-1", b"x" * 32)) as uplink:
        with pytest.raises(UploadFailed, match="UNAUTHENTICATED: the proof is wrong"):
            await uplink.send(DATA, "log.bin")
    assert len(server.sessions) == 1


async def test_a_token_cannot_answer_a_challenge(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(challenge=b"c" * 32))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="credential is a token") as caught:
            await uplink.send(DATA, "log.bin")
    assert caught.value.code == ErrorCode.CREDENTIAL_UNSUPPORTED


async def test_a_server_without_a_required_feature_is_refused(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(welcome=without(Feature.CHUNK_CRC32C)))
    async with uplinks(features_required=Feature.CHUNK_CRC32C) as uplink:
        with pytest.raises(UploadFailed, match="does not offer"):
            await uplink.send(DATA, "log.bin")
    assert not server.files


async def test_nothing_waits_for_a_sign_of_life_inside_tls(certificate: Certificate, time: FakeTime) -> None:
    """Time stands still here, so that no ping could push on what was held up."""
    trusting = ssl.create_default_context(cafile=certificate.path)
    async with (
        FakeServer(certificate.server_context()) as server,
        Uplink(
            "127.0.0.1", server.port, TokenCredentials("t"), tls=trusting, clock=time.clock, sleep=time.sleep
        ) as uplink,
    ):
        async with asyncio.timeout(DEADLINE_S):
            await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].data == DATA
