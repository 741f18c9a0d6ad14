"""Strangers at a real daemon's door: whatever they do, devices get in, and what is inside goes on."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from protocol import frames
from protocol.constants import Action
from protocol.errors import ErrorCode
from tests.support.certificates import Certificate, make_certificate
from tests.support.crowds import crowd
from tests.support.raw_device import Wire, open_request, token_hello
from tests.support.scene import Bystander, Scene, scene
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRIES = 20

STRANGERS, DEVICES = ("127.0.0.9", 0), ("127.0.0.10", 0)
"""Local addresses."""

DESCRIPTORS = 256
PER_DEVICE_MAX = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> AsyncIterator[Scene]:
    settings = {
        "LISTEN__TLS_CERTIFICATE": str(certificate.path),
        "LISTEN__TLS_KEY": str(certificate.key_path),
        "LIMITS__CONNECTIONS_MAX": "50",
        "LIMITS__CONNECTIONS_PER_DEVICE_MAX": str(PER_DEVICE_MAX),
    }
    limited = ("sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh")
    async with scene(tmp_path_factory.mktemp("door") / "data", settings, limited) as running:
        yield running


@pytest.fixture(scope="module")
def tls(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate.path))


async def connected(live: Scene, tls: ssl.SSLContext, device: str, local: tuple[str, int] = DEVICES) -> Wire:
    """A device's connection, in whatever answer its HELLO gets."""
    wire = await Wire.connect(live.address, tls=tls, local=local)
    wire.say(token_hello(live.token(device)))
    return wire


def lines(live: Scene, event: str) -> list[dict[str, object]]:
    """The log's lines of this event."""
    return [line for line in map(json.loads, live.daemon.log) if line["event"] == event]


async def samples(live: Scene) -> dict[str, float]:
    """The daemon's metrics, by name with labels."""
    text = (await live.http.get("/metrics", token=None)).body.decode()
    pairs = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


async def test_too_few_descriptors_are_told_at_the_start_and_by_check_config(live: Scene) -> None:
    (warning,) = lines(live, "too few file descriptors")
    assert str(warning["descriptors"]).startswith(f"{DESCRIPTORS}, but the settings may need 5658: only 50 connections")
    assert "file descriptors" in await live.daemon.command("check-config")


async def test_seven_hundred_silent_links_of_a_tls_listener_stop_nobody(live: Scene, tls: ssl.SSLContext) -> None:
    async with await connected(live, tls, "bystander") as bystander, crowd(live.address, STRANGERS, 700):
        await bystander.hear(frames.Welcome)
        await bystander.open(1, open_request("beside.bin", 10 * TRIES))
        for number in range(TRIES):
            async with await connected(live, tls, "cam") as wire:
                await wire.hear(frames.Welcome)
            await bystander.upload(1, 10 * number, bytes(10))
        assert (await live.http.get("/readyz", token=None)).status == 200
        assert "pump" in await live.daemon.command("device", "add", "pump")
        found = await samples(live)
        assert found['uplinkd_connections{state="tls"}'] > 0
        assert found['uplinkd_connections_closed_total{reason="evicted"}'] >= 700 - DESCRIPTORS
        await until(lambda: lines(live, "connections that were not admitted made room for newer ones"))
    assert not [line for line in live.daemon.log if "STORAGE_FAILED" in line]


async def test_a_device_gets_in_from_the_address_of_the_strangers(live: Scene, tls: ssl.SSLContext) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(700):
            await stack.enter_async_context(await Wire.connect(live.address, local=STRANGERS))
        for _ in range(TRIES):
            async with await connected(live, tls, "cam", STRANGERS) as wire:
                await wire.hear(frames.Welcome)


async def test_a_device_beyond_its_own_connections_is_asked_to_wait(live: Scene, tls: ssl.SSLContext) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(PER_DEVICE_MAX):
            wire = await stack.enter_async_context(await connected(live, tls, "greedy"))
            await wire.hear(frames.Welcome)
        one_more = await stack.enter_async_context(await connected(live, tls, "greedy"))
        refused = await one_more.hear(frames.Refused)
        assert (refused.code, refused.action) == (ErrorCode.TOO_MANY_CONNECTIONS, Action.WAIT)
        assert refused.wait_ms > 0
        other = await stack.enter_async_context(await connected(live, tls, "modest"))
        await other.hear(frames.Welcome)
        assert (await samples(live))['uplinkd_connections_refused_total{limit="device"}'] == 1


async def test_without_descriptors_links_wait_and_what_is_open_goes_on(tmp_path: Path) -> None:
    async with scene(tmp_path / "data") as live, Bystander.at(live) as bystander:
        # The connection of this request stays open for the one below.
        await samples(live)
        await bystander.go_on()
        with live.daemon.out_of_descriptors():
            waiting = asyncio.create_task(live.admitted("cam"))
            await live.until_logged(lambda line: "no connection can be accepted for now" in line)
            await bystander.go_on()
            assert (await samples(live))["uplinkd_accept_failures_total"] >= 1
            assert not waiting.done()
        (await waiting).hang_up()
        assert sum("no connection can be accepted for now" in line for line in live.daemon.log) == 1
