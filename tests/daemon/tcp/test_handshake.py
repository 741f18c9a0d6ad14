"""From HELLO to WELCOME or REFUSED: tokens, proofs of a secret, and verdicts that come late or not at all."""

from dataclasses import replace

import pytest

from daemon.catalog.interface import CatalogFailed
from protocol import frames
from protocol.constants import AUTHORITY_UNLIMITED_S, CredentialKind
from protocol.errors import ErrorCode
from protocol.handshake import device_key, prove
from tests.support.device_site import DEVICE, SECRET, SETTINGS, listening, on_uvloop, only
from tests.support.raw_device import secret_hello, token_hello
from tests.support.waiting import until

FAILED = CatalogFailed("the disk hangs")


@on_uvloop
class TestHandshake:
    async def test_a_token_is_answered_with_what_holds(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.say(replace(token_hello(site.site.token(ttl_s=60)), agent="meter", agent_version="3", last_end=0x0121))
            welcome = await wire.hear(frames.Welcome)
            assert (welcome.authority_s, welcome.server_time_ms) == (60, site.site.bench.clock.wall_ms())
            assert welcome.window_bytes == SETTINGS.limits.window_bytes
            assert welcome.connection_id == only(site).connection_id
            assert site.site.bench.metrics.handshakes[CredentialKind.TOKEN, None] == 1
            (line,) = [each for each in site.site.bench.log.lines if each["event"] == "device reports its last end"]
            assert (line["agent"], line["agent_version"], line["code"]) == ("meter", "3", "IDLE_TIMEOUT")

    async def test_an_end_that_is_not_known_is_logged_all_the_same(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.say(replace(token_hello(site.site.token()), last_end=0x0999))
            await wire.hear(frames.Welcome)
            assert [line["code"] for line in site.site.bench.log.lines if "code" in line] == ["0x0999"]

    async def test_only_what_both_can_do_is_in_force(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.say(replace(token_hello(site.site.token()), features=0xF000_0001))
            assert (await wire.hear(frames.Welcome)).features == 1

    async def test_a_token_that_is_not_good_is_refused(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.say(token_hello("a.b.c"))
            assert (await wire.hear(frames.Refused)).code == ErrorCode.UNAUTHENTICATED
            assert site.site.bench.metrics.handshakes[CredentialKind.TOKEN, ErrorCode.UNAUTHENTICATED] == 1

    async def test_a_secret_that_is_proven_is_good_without_end(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            reply = await wire.prove(DEVICE, SECRET)
            assert isinstance(reply.frame, frames.Welcome)
            assert reply.frame.authority_s == AUTHORITY_UNLIMITED_S
            assert site.site.bench.metrics.handshakes[CredentialKind.DEVICE_SECRET, None] == 1

    async def test_a_wrong_secret_is_refused(self) -> None:
        async with listening() as site:
            reply = await (await site.connect()).prove(DEVICE, b"w" * 32)
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.UNAUTHENTICATED

    async def test_a_named_tenant_is_the_devices(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.say(secret_hello(DEVICE, "other"))
            await wire.hear(frames.Challenge)
            wire.say(frames.Proof(bytes(32)))
            assert (await wire.hear(frames.Refused)).code == ErrorCode.UNAUTHENTICATED

    async def test_a_catalog_that_does_not_answer_is_no_verdict(self) -> None:
        async with listening() as site:
            site.site.devices.failure = FAILED
            reply = await (await site.connect()).prove(DEVICE, SECRET)
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.INTERNAL
            assert site.site.bench.log.at("warning") == ["catalog failed at PROOF"]
            site.site.devices.failure = None

    async def test_a_failure_that_was_not_foreseen_ends_the_connection(self) -> None:
        async with listening() as site:
            site.site.devices.failure = ZeroDivisionError()
            reply = await (await site.connect()).prove(DEVICE, SECRET)
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.INTERNAL
            assert site.site.bench.failures == [site.site.devices.failure]
            site.site.bench.failures.clear()

    @pytest.mark.parametrize("ends", ["closed", "failed"])
    @pytest.mark.parametrize("secret", [SECRET, b"w" * 32])
    async def test_a_verdict_that_comes_too_late_is_no_welcome(self, ends: str, secret: bytes) -> None:
        async with listening() as site:
            site.site.devices.answers.clear()
            wire = await site.connect()
            hello = wire.say(secret_hello(DEVICE))
            challenge = await wire.reply()
            wire.say(frames.Proof(_proof(secret, hello, challenge.raw)))
            await until(lambda: site.site.devices.asked)
            session = only(site)
            if ends == "closed":
                for connection in list(site.server._connections):
                    connection.abort()
                await until(lambda: site.connections == 0)
            else:
                session.connection.fail(ErrorCode.SHUTTING_DOWN, "meanwhile")
                session.wire.changed()
            site.site.devices.answers.set()
            await until(lambda: len(site.site.bench.tasks) == 0)
            assert session.admitted is None
            assert site.site.bench.metrics.handshakes[CredentialKind.DEVICE_SECRET, None] == 0

    async def test_time_that_the_catalog_takes_is_not_the_devices(self) -> None:
        async with listening() as site:
            site.site.devices.answers.clear()
            wire = await site.connect()
            hello = wire.say(secret_hello(DEVICE))
            challenge = await wire.reply()
            wire.say(frames.Proof(_proof(SECRET, hello, challenge.raw)))
            await until(lambda: site.site.devices.asked)
            await site.pass_s(SETTINGS.limits.handshake_timeout_s + SETTINGS.limits.idle_timeout_s)
            site.site.devices.answers.set()
            await wire.hear(frames.Welcome)


def _proof(secret: bytes, hello: bytes, challenge: bytes) -> bytes:
    return prove(device_key(secret), hello, challenge)
