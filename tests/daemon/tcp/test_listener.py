"""Which devices may connect, the sweep over all connections, the drain: on real sockets and the daemon's event loop."""

import asyncio
import errno
import os
import socket
import ssl
from types import SimpleNamespace

import pytest

from daemon.tcp import listener as server_module
from daemon.tcp.listener import LINGER_S
from daemon.telemetry.metrics import CloseReason, ConnectionLimit, ConnectionPhase
from protocol import frames
from protocol.constants import Action
from protocol.errors import ErrorCode
from protocol.server_output import WAIT_MS
from tests.support.certificates import Certificate, make_certificate
from tests.support.deadlines import DEADLINE_S
from tests.support.device_site import (
    DEVICE,
    DRAIN,
    PROXY_V2,
    SECRET,
    SETTINGS,
    TENANT,
    Listening,
    listening,
    on_uvloop,
    policy_of,
)
from tests.support.raw_device import Wire, chunk, open_request, token_hello
from tests.support.waiting import until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def refusal(wire: Wire) -> frames.Refused:
    """What a connection is refused with, unasked."""
    refused = await wire.hear(frames.Refused)
    await wire.ended()
    return refused


async def syncing(site: Listening) -> Wire:
    """A device whose first three bytes are being synced, until the test lets the storage go on."""
    storage = site.site.bench.storage
    storage.holds_syncs = True
    wire = await site.admitted()
    await wire.open(1, open_request("log"))
    wire.send(chunk(1, 0, b"abc"))
    await until(lambda: storage.syncs)
    return wire


async def turned_away(site: Listening, device: str = DEVICE, local: tuple[str, int] | None = None) -> frames.Refused:
    """What a device that proves itself is refused with."""
    wire = await site.connect(local=local)
    wire.say(token_hello(site.site.token(device)))
    return await refusal(wire)


@on_uvloop
class TestPlaces:
    async def test_one_device_too_many_is_asked_to_wait_once_it_has_proven_itself(self) -> None:
        async with listening(policy_of(connections_max=2)) as site:
            first, _ = await site.admitted(), await site.admitted()
            refused = await turned_away(site)
            assert (refused.code, refused.action) == (ErrorCode.TOO_MANY_CONNECTIONS, Action.WAIT)
            assert refused.text == "the server has as many connections as it may"
            # CountingEntropy gives the upper end: the wait is spread, or all refused ones would come back together.
            assert refused.wait_ms == 2 * WAIT_MS
            assert site.site.bench.metrics.connections_refused[ConnectionLimit.SERVER] == 1
            first.hang_up()
            await until(lambda: site.phase(ConnectionPhase.OPEN) == 1)
            await site.admitted()

    async def test_strangers_take_no_place(self) -> None:
        async with listening(policy_of(connections_max=1)) as site:
            for _ in range(3):
                await site.connect()
            await site.admitted()
            assert site.phase(ConnectionPhase.HANDSHAKE) == 3

    async def test_a_refused_device_takes_no_place_while_it_reads_why(self) -> None:
        async with listening(policy_of(connections_max=1)) as site:
            first = await site.admitted()
            for _ in range(2):
                await turned_away(site)
            assert site.phase(ConnectionPhase.CLOSING) == 2
            first.hang_up()
            await until(lambda: site.phase(ConnectionPhase.OPEN) == 0)
            await site.admitted()

    async def test_each_device_has_its_share(self) -> None:
        async with listening(policy_of(connections_per_device_max=1)) as site:
            await site.admitted()
            assert (await turned_away(site)).text == f"device {DEVICE} has as many connections as it may"
            await site.admitted("pump-8")

    async def test_each_tenant_has_its_share(self) -> None:
        async with listening(policy_of(connections_per_tenant_max=1)) as site:
            await site.admitted()
            assert (await turned_away(site, "pump-8")).text == f"tenant {TENANT} has as many connections as it may"

    async def test_each_address_has_its_share(self) -> None:
        async with listening(policy_of(connections_per_ip_max=1)) as site:
            await site.admitted(local=("127.0.0.1", 0))
            refused = await turned_away(site, local=("127.0.0.1", 0))
            assert refused.text == "address 127.0.0.1 has as many connections as it may"
            await site.admitted(local=("127.0.0.2", 0))

    async def test_a_new_policy_holds_for_connections_made_from_then_on(self) -> None:
        async with listening(policy_of(connections_max=1)) as site:
            await site.admitted()
            site.server.policy = policy_of(connections_max=2)
            await site.admitted()
            await turned_away(site)


@on_uvloop
class TestStrangers:
    async def test_the_oldest_of_the_address_with_the_most_makes_room(self) -> None:
        async with listening(policy_of(handshakes_max=3)) as site:
            other = await site.connect(local=("127.0.0.2", 0))
            await until(lambda: site.connections == 1)
            old = await site.connect()
            await until(lambda: site.connections == 2)
            young = await site.connect()
            await until(lambda: site.connections == 3)
            await site.admitted()
            await old.dropped()
            assert site.site.bench.metrics.connections_closed[CloseReason.EVICTED] == 1
            for wire in (other, young):
                wire.say(token_hello(site.site.token()))
                await wire.hear(frames.Welcome)

    async def test_a_device_gets_in_whatever_a_crowd_of_its_own_address_does(self) -> None:
        async with listening(policy_of(handshakes_max=5)) as site:
            for _ in range(10):
                for _ in range(5):
                    await site.connect()
                (await site.admitted()).hang_up()
            assert site.phase(ConnectionPhase.HANDSHAKE) <= 5

    async def test_refused_ones_that_linger_make_room_too(self) -> None:
        async with listening(policy_of(connections_max=1, handshakes_max=2)) as site:
            first = await site.admitted()
            for _ in range(5):
                await turned_away(site)
            assert site.phase(ConnectionPhase.CLOSING) <= 3
            first.hang_up()
            await until(lambda: site.phase(ConnectionPhase.OPEN) == 0)
            await site.admitted()

    async def test_one_address_may_have_no_more_than_its_share(self) -> None:
        async with listening(policy_of(connections_per_ip_max=1)) as site:
            old = await site.connect()
            await until(lambda: site.connections)
            await site.connect()
            await old.dropped()

    async def test_one_evicted_while_its_proof_is_checked_is_not_let_in(self) -> None:
        async with listening(policy_of(handshakes_max=1)) as site:
            site.site.devices.answers.clear()
            old = await site.connect()
            proving = asyncio.create_task(old.prove(DEVICE, SECRET))
            await until(lambda: site.site.devices.asked)
            (connection,) = site.server._connections
            session = connection.session
            assert session is not None
            await site.connect()
            await until(lambda: site.site.bench.metrics.connections_accepted == 2)
            site.site.devices.answers.set()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await proving
            assert session.admitted is None
            assert connection.admit(TENANT, DEVICE) is not None

    async def test_evictions_of_a_second_are_one_line_in_the_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server_module, "SWEEP_S", 0)
        async with listening(policy_of(handshakes_max=1)) as site:
            for _ in range(4):
                await site.connect()
            await until(lambda: site.site.bench.metrics.connections_closed[CloseReason.EVICTED] == 3)
            running = asyncio.create_task(site.server.run())
            log = site.site.bench.log
            await until(lambda: log.lines)
            await asyncio.sleep(0)
            running.cancel()
            (line,) = log.lines
            assert (line["count"], line["waiting"], line["most_from"]) == (3, 1, "127.0.0.1")

    async def test_all_stages_together_have_one_time(self, certificate: Certificate) -> None:
        async with listening(policy_of(proxied=True), tls=(certificate.server_context(),) * 2) as site:
            timeout_s, site.tls = SETTINGS.limits.handshake_timeout_s, None
            wire = await site.connect()
            await until(lambda: site.phase(ConnectionPhase.PROXY))
            await site.pass_s(timeout_s / 2)
            wire.send(PROXY_V2)
            await until(lambda: site.phase(ConnectionPhase.TLS))
            await site.pass_s(timeout_s / 2)
            assert site.phase(ConnectionPhase.TLS)
            await site.pass_s(1)
            await wire.dropped()
            assert site.site.bench.metrics.connections_closed[CloseReason.TIMEOUT] == 1

    async def test_a_short_of_descriptors_is_told_and_counted(self) -> None:
        async with listening() as site:
            site.server._short(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), 0.5)
            assert site.site.bench.metrics.accept_failures == 1
            (line,) = site.site.bench.log.lines
            assert line["error"] == "Too many open files"


@on_uvloop
class TestSweep:
    async def test_a_silent_stranger_is_refused_in_time(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            await until(lambda: site.connections)
            await site.pass_s(SETTINGS.limits.handshake_timeout_s + 1)
            assert (await refusal(wire)).code == ErrorCode.HANDSHAKE_TIMEOUT
            assert site.site.bench.metrics.handshakes[None, ErrorCode.HANDSHAKE_TIMEOUT] == 1

    async def test_a_silent_device_is_asked_for_a_sign_of_life_then_cut(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await site.pass_s(SETTINGS.limits.keepalive_s + 1)
            wire.say(frames.Ping(7))  # heard behind the server's own PING, which Wire answers by itself
            assert (await wire.hear(frames.Pong)).token == 7
            await site.pass_s(SETTINGS.limits.idle_timeout_s + 1)
            assert (await wire.hear(frames.Error)).code == ErrorCode.IDLE_TIMEOUT

    async def test_others_get_their_turn_between_two_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server_module, "SWEEP_BATCH", 1)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with listening() as site:
            for _ in range(3):
                await site.admitted()
            counting = asyncio.create_task(count())
            await site.pass_s(0)
            counting.cancel()
        assert turns >= 3

    async def test_every_connection_is_checked_in_the_background(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            await until(lambda: site.connections)
            site.site.bench.clock.pass_s(SETTINGS.limits.handshake_timeout_s + 1)
            running = asyncio.create_task(site.server.run())
            assert (await refusal(wire)).code == ErrorCode.HANDSHAKE_TIMEOUT
            running.cancel()


@on_uvloop
class TestCut:
    async def test_a_disabled_device_is_cut_at_once(self) -> None:
        async with listening() as site:
            cut, other = await site.admitted(), await site.admitted("pump-8")
            await site.connect()
            site.site.devices.off = {(TENANT, DEVICE)}
            await site.services.gate.load()
            assert site.server.cut(TENANT, DEVICE) == 1
            error = await cut.hear(frames.Error)
            assert (error.code, error.action) == (ErrorCode.DEVICE_DISABLED, Action.GIVE_UP)
            await cut.ended()
            assert site.site.bench.metrics.errors[ErrorCode.DEVICE_DISABLED] == 1
            other.say(frames.Ping(1))
            await other.hear(frames.Pong)

    async def test_its_uploads_are_let_go_with_the_last_words(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            opened = await wire.open(1, open_request("log"))
            site.site.devices.off = {(TENANT, DEVICE)}
            await site.services.gate.load()
            site.server.cut(TENANT, DEVICE)
            assert not site.site.bench.live.is_live(opened.upload_id)


@on_uvloop
class TestPhases:
    async def test_connections_by_how_far_they_are(self) -> None:
        async with listening() as site:
            await site.connect()
            await site.admitted()
            zeros = dict.fromkeys(ConnectionPhase, 0)
            assert site.server.phases() == zeros | {ConnectionPhase.HANDSHAKE: 1, ConnectionPhase.OPEN: 1}
            await syncing(site)
            draining = asyncio.create_task(site.server.drain(DRAIN))
            await until(lambda: site.server.phases()[ConnectionPhase.DRAINING])
            site.site.bench.storage.holds_syncs = False
            site.site.bench.storage.sync_next()
            site.site.bench.clock.pass_s(LINGER_S)
            await draining


@on_uvloop
class TestDrain:
    async def test_all_devices_are_asked_to_come_back_later(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            draining = asyncio.create_task(site.server.drain(DRAIN))
            away = await wire.hear(frames.Goaway)
            assert (away.code, away.reconnect_ms) == (ErrorCode.SHUTTING_DOWN, DRAIN.reconnect_ms_max)
            await wire.ended()
            wire.hang_up()
            await draining
            assert site.site.bench.metrics.connections_closed == {
                **dict.fromkeys(CloseReason, 0),
                CloseReason.DRAIN: 1,
            }

    async def test_what_is_under_way_gets_its_last_ack(self) -> None:
        async with listening() as site:
            storage = site.site.bench.storage
            wire = await syncing(site)
            draining = asyncio.create_task(site.server.drain(DRAIN))
            await wire.hear(frames.Goaway)
            storage.sync_next()
            assert (await wire.hear(frames.Ack, 1)).next_expected_byte == 3
            # What it sent before it heard of the drain is still listened to.
            wire.send(chunk(1, 3, b"def"))
            await until(lambda: storage.syncs)
            storage.sync_next()
            assert (await wire.hear(frames.Ack, 1)).next_expected_byte == 6
            site.site.bench.clock.pass_s(LINGER_S)
            await wire.ended()
            wire.hang_up()
            await draining

    async def test_a_quiet_device_with_an_open_upload_is_read_for_a_while(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = 0

        async def look(_: float) -> None:
            nonlocal looks
            looks += 1
            await asyncio.sleep(0)

        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            monkeypatch.setattr(server_module, "asyncio", SimpleNamespace(sleep=look))
            draining = asyncio.create_task(site.server.drain(DRAIN))
            await wire.hear(frames.Goaway)
            await until(lambda: looks > 2)
            # It was sent before the device heard of the drain.
            wire.send(chunk(1, 0, b"abc"))
            assert (await wire.hear(frames.Ack, 1)).next_expected_byte == 3
            site.site.bench.clock.pass_s(LINGER_S)
            await wire.ended()
            wire.hang_up()
            await draining

    async def test_a_device_in_its_handshake_is_refused(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            await until(lambda: site.connections)
            draining = asyncio.create_task(site.server.drain(DRAIN))
            refused = await wire.hear(frames.Refused)
            assert (refused.code, refused.wait_ms) == (ErrorCode.SHUTTING_DOWN, DRAIN.reconnect_ms_max)
            wire.hang_up()
            await draining

    async def test_a_device_that_connects_during_the_drain_is_refused(self) -> None:
        async with listening() as site:
            address = site.address
            other = socket.create_connection(address)
            # Accepted by the kernel, not yet by the server.
            draining = asyncio.create_task(site.server.drain(DRAIN))
            await until(draining.done)
            other.close()
            assert site.connections == 0

    async def test_a_device_that_never_closes_does_not_hold_up_the_drain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with listening() as site:
            storage = site.site.bench.storage
            wire = await syncing(site)
            draining = asyncio.create_task(site.server.drain(DRAIN))
            await wire.hear(frames.Goaway)
            site.site.bench.clock.pass_s(DRAIN.timeout_s)
            async with asyncio.timeout(DEADLINE_S):
                await draining
            await wire.dropped()
            storage.sync_next()

    @pytest.mark.parametrize(
        ("phase", "proxied"),
        [(ConnectionPhase.TLS, False), (ConnectionPhase.TLS, True), (ConnectionPhase.PROXY, True)],
    )
    async def test_one_without_a_session_is_dropped_at_once(
        self, phase: ConnectionPhase, proxied: bool, certificate: Certificate
    ) -> None:
        async with listening(policy_of(proxied=proxied), tls=(certificate.server_context(),) * 2) as site:
            site.tls = None
            wire = await site.connect()
            if proxied and phase is ConnectionPhase.TLS:
                wire.send(PROXY_V2)
            await until(lambda: site.phase(phase))
            await site.server.drain(DRAIN)
            assert site.connections == 0
            await wire.dropped()


@on_uvloop
class TestTls:
    @pytest.mark.parametrize("proxied", [False, True])
    async def test_a_handshake_that_fails_leaves_nothing_behind(self, certificate: Certificate, proxied: bool) -> None:
        async with listening(policy_of(proxied=proxied), tls=(certificate.server_context(),) * 2) as site:
            site.tls = None
            wire = await site.connect()
            wire.send(PROXY_V2 * proxied + b"GET / HTTP/1.1\r\n\r\n")
            await wire.dropped()
            await until(lambda: site.connections == 0)
            assert site.site.bench.metrics.connections_closed[CloseReason.TLS_FAILED] == 1

    @pytest.mark.parametrize("proxied", [False, True])
    async def test_a_handshake_that_is_broken_off_leaves_nothing_behind(
        self, certificate: Certificate, proxied: bool
    ) -> None:
        async with listening(policy_of(proxied=proxied), tls=(certificate.server_context(),) * 2) as site:
            site.tls = None
            wire = await site.connect()
            wire.send(PROXY_V2 * proxied)
            await until(lambda: site.phase(ConnectionPhase.TLS))
            wire.hang_up()
            await until(lambda: site.connections == 0)
            assert site.site.bench.metrics.connections_closed.total() == 1

    async def test_strangers_in_the_handshake_are_counted_and_timed(self, certificate: Certificate) -> None:
        async with listening(tls=(certificate.server_context(),) * 2) as site:
            site.tls = None
            wire = await site.connect()
            await until(lambda: site.phase(ConnectionPhase.TLS) == 1)
            await site.pass_s(SETTINGS.limits.handshake_timeout_s + 1)
            await wire.dropped()
            await until(lambda: site.connections == 0)
            assert site.site.bench.metrics.connections_closed[CloseReason.TIMEOUT] == 1

    async def test_a_handshake_that_ends_too_late_was_too_slow(self, certificate: Certificate) -> None:
        async with listening(tls=(certificate.server_context(),) * 2) as site:
            site.tls = None
            wire = await site.connect()
            await until(lambda: site.phase(ConnectionPhase.TLS) == 1)
            site.site.bench.clock.pass_s(SETTINGS.limits.handshake_timeout_s + 1)
            wire.send(b"no TLS")
            await wire.dropped()
            await until(lambda: site.connections == 0)
            assert site.site.bench.metrics.connections_closed[CloseReason.TIMEOUT] == 1

    async def test_strangers_in_the_handshake_make_room(self, certificate: Certificate) -> None:
        device = ssl.create_default_context(cafile=certificate.path)
        async with listening(policy_of(handshakes_max=3), tls=(certificate.server_context(), device)) as site:
            for _ in range(5):
                site.tls = None
                strangers = [await site.connect() for _ in range(3)]
                await until(lambda: site.phase(ConnectionPhase.TLS) == 3)
                site.tls = device
                (await site.admitted()).hang_up()
                await strangers[0].dropped()
