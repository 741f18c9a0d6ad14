"""What a connection means: rights over time, and answers to each request, whatever happens meanwhile."""

import hashlib
from dataclasses import replace

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.tcp.session import Session
from daemon.telemetry.metrics import ConnectionPhase
from protocol import frames
from protocol.constants import (
    NEVER_S,
    SIZE_UNKNOWN,
    Disposition,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.ranges import Span
from protocol.server import ServerConnection
from protocol.server_output import WAIT_MS
from protocol.state import ConnectionState
from tests.support.device_site import (
    DEVICE,
    SETTINGS,
    TENANT,
    Listening,
    Site,
    listening,
    on_uvloop,
    only,
    policy_of,
)
from tests.support.loop_turns import turns
from tests.support.raw_device import Wire, chunk, open_request, token_hello
from tests.support.server_rig import Pool
from tests.support.waiting import until

GRACE_S = SETTINGS.auth.grace_s
FAILED = CatalogFailed("the disk hangs")
FULL = CatalogFailed("no room", disk_full=True)


async def expired(site: Listening) -> Wire:
    """A connection whose token's time is over, with stream 1 open."""
    wire = await site.admitted(ttl_s=60)
    await wire.open(1, open_request("log"))
    await site.pass_s(60)
    assert only(site).connection.state is ConnectionState.EXPIRED
    return wire


@on_uvloop
class TestAuthority:
    async def test_at_expiry_acks_are_withheld_until_a_new_token_comes(self) -> None:
        async with listening() as site:
            wire = await expired(site)
            wire.send(chunk(1, 0, b"abc"))
            await until(lambda: site.site.bench.metrics.acks)
            wire.say(frames.Ping(1))
            await wire.hear(frames.Pong)
            wire.say(frames.Refresh(site.site.token(ttl_s=120)))
            assert (await wire.hear(frames.Refreshed)).authority_s == 120
            assert (await wire.hear(frames.Ack, 1)).next_expected_byte == 3
            await site.pass_s(GRACE_S + 1)
            wire.say(frames.Ping(2))
            await wire.hear(frames.Pong)

    async def test_requests_wait_and_what_is_behind_them(self) -> None:
        async with listening() as site:
            wire = await expired(site)
            wire.say(frames.Refresh(site.site.token()))
            wire.say(frames.Query("log"))
            await wire.hear(frames.Refreshed)
            await wire.hear(frames.Status)

    async def test_without_a_new_token_the_grace_ends(self) -> None:
        async with listening() as site:
            wire = await expired(site)
            wire.say(frames.Query("log"))
            await until(lambda: only(site).connection.is_held)
            await site.pass_s(GRACE_S - 1)
            assert only(site).connection.state is ConnectionState.EXPIRED
            await site.pass_s(1)
            assert (await wire.hear(frames.Error)).code == ErrorCode.TOKEN_EXPIRED
            assert site.site.bench.metrics.errors[ErrorCode.TOKEN_EXPIRED] == 1

    @pytest.mark.parametrize(
        ("device", "ttl_s", "code"),
        [("pump-8", 60, ErrorCode.UNAUTHENTICATED), (DEVICE, -1000, ErrorCode.TOKEN_EXPIRED)],
    )
    async def test_a_new_token_must_be_good_and_for_the_same_device(
        self, device: str, ttl_s: float, code: ErrorCode
    ) -> None:
        async with listening() as site:
            wire = await site.admitted()
            wire.say(frames.Refresh(site.site.token(device, ttl_s)))
            assert (await wire.hear(frames.Error)).code == code
            await wire.ended()

    async def test_a_disabled_device_learns_it_at_the_next_check(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            site.site.devices.off = {(TENANT, DEVICE)}
            await site.services.gate.load()
            await site.pass_s(1)
            await site.pass_s(1)
            assert (await wire.hear(frames.Error)).code == ErrorCode.DEVICE_DISABLED
            assert site.site.bench.metrics.errors[ErrorCode.DEVICE_DISABLED] == 1

    @pytest.mark.parametrize("asks", ["open", "finish"])
    async def test_a_disabled_device_learns_it_at_its_next_request(self, asks: str) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log", 3))
            await wire.upload(1, 0, b"abc")
            site.site.devices.off = {(TENANT, DEVICE)}
            await site.services.gate.load()
            if asks == "open":
                wire.say(open_request("other"), 2)
            else:
                wire.say(frames.Finish(3), 1)
            assert (await wire.hear(frames.Error)).code == ErrorCode.DEVICE_DISABLED
            await wire.ended()

    async def test_requests_that_arrive_after_the_end_are_carried_out_after_refresh(self) -> None:
        async with listening() as site:
            wire = await site.admitted(ttl_s=60)
            await wire.open(1, open_request("log", 3))
            await wire.upload(1, 0, b"abc")
            site.site.bench.clock.pass_s(60)
            asked = site.site.bench.catalog.gates["open"].asked
            wire.say(frames.Open(Disposition.REPLACE, 5, "log"), 2)
            await until(lambda: only(site).connection.state is ConnectionState.EXPIRED)
            await turns()
            assert site.site.bench.catalog.gates["open"].asked == asked
            assert len(site.site.bench.live.values()) == 1
            wire.say(frames.Refresh(site.site.token()))
            await wire.hear(frames.Refreshed)
            assert (await wire.hear(frames.Error, 1)).code == ErrorCode.FENCED
            await wire.hear(frames.Opened, 2)

    @pytest.mark.parametrize("request_frame", [frames.Query("log"), frames.Abort(), frames.Finish(3)])
    async def test_no_request_is_carried_out_after_the_end(self, request_frame: frames.ControlFrame) -> None:
        async with listening() as site:
            wire = await site.admitted(ttl_s=60)
            await wire.open(1, open_request("log", 3))
            await wire.upload(1, 0, b"abc")
            site.site.bench.clock.pass_s(60)
            wire.say(request_frame, 1)
            await until(lambda: only(site).connection.state is ConnectionState.EXPIRED)
            await turns()
            gates = site.site.bench.catalog.gates
            assert [gates[each].asked for each in ("end", "complete", "find")] == [0, 0, 0]

    async def test_open_notices_an_expired_token(self) -> None:
        async with listening() as site:
            wire = await site.admitted(ttl_s=60)
            site.site.bench.clock.pass_s(60)
            wire.say(open_request("log"), 1)
            await until(lambda: only(site).connection.state is ConnectionState.EXPIRED)


@on_uvloop
class TestOpen:
    async def test_a_complete_file_is_answered_by_its_digests(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log", 3))
            await wire.upload(1, 0, b"abc")
            digest = hashlib.sha256(b"abc").digest()
            wire.say(frames.Finish(3, sha256=digest), 1)
            finished = await wire.hear(frames.Finished, 1)
            opened = await wire.open(2, open_request("log", 3))
            assert opened == frames.Opened(
                finished.upload_id,
                UploadState.COMPLETE,
                UploadState.NONE,
                3,
                NEVER_S,
                crc32c=finished.crc32c,
                sha256=digest,
            )
            wire.say(frames.Query("log"))
            status = await wire.hear(frames.Status)
            assert (status.state, status.size, status.sha256) == (UploadState.COMPLETE, 3, digest)

    @pytest.mark.parametrize(("ranges_max", "ranges"), [(8, (Span(2, 3), Span(4, 5))), (1, (Span(2, 3),)), (0, None)])
    async def test_opened_has_as_many_ranges_as_asked_for(
        self, ranges_max: int, ranges: tuple[Span, ...] | None
    ) -> None:
        async with listening() as site:
            first = await site.admitted()
            await first.open(1, open_request("log"))
            for start in (2, 4):
                first.send(chunk(1, start, b"x"))
                await first.hear(frames.Ack, 1)
            wire = await site.connect()
            wire.say(replace(token_hello(site.site.token()), ack_ranges_max=ranges_max))
            await wire.hear(frames.Welcome)
            assert (await wire.open(1, open_request("log"))).ranges == ranges
            assert (await first.hear(frames.Error, 1)).code == ErrorCode.FENCED

    async def test_what_cannot_be_opened_ends_its_stream_alone(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            wire.say(frames.Open(Disposition.RESUME_ONLY, SIZE_UNKNOWN, "log"), 1)
            assert (await wire.hear(frames.Error, 1)).code == ErrorCode.NOT_FOUND
            await wire.open(2, open_request("log"))

    @pytest.mark.parametrize(("failure", "code"), [(FAILED, ErrorCode.STORAGE_FAILED), (FULL, ErrorCode.DISK_FULL)])
    async def test_a_catalog_that_fails(self, failure: CatalogFailed, code: ErrorCode) -> None:
        async with listening() as site:
            site.site.bench.catalog.gates["open"].failures.append(failure)
            wire = await site.admitted()
            wire.say(open_request("log"), 1)
            assert (await wire.hear(frames.Error, 1)).code == code

    @pytest.mark.parametrize("fails", [False, True])
    @pytest.mark.parametrize("ends", ["closed", "failed"])
    async def test_an_upload_opened_after_the_end_is_detached(self, ends: str, fails: bool) -> None:
        async with listening() as site:
            bench = site.site.bench
            gate = bench.catalog.gates["open"]
            gate.after.clear()
            if fails:
                gate.failures_after.append(FAILED)
            wire = await site.admitted()
            wire.say(open_request("log"), 1)
            await until(lambda: gate.asked)
            if ends == "closed":
                wire.hang_up()
                (connection,) = site.server._connections
                connection.abort()
                await until(lambda: site.connections == 0)
            else:
                session = only(site)
                session.connection.fail(ErrorCode.SHUTTING_DOWN, "meanwhile")
                session.wire.changed()
                assert (await wire.hear(frames.Error)).code == ErrorCode.SHUTTING_DOWN
            gate.after.set()
            await until(lambda: len(bench.tasks) == 0)
            # Nobody has it, so cleanup may remove it one day.
            assert not bench.live.values()

    async def test_a_complete_file_opened_after_the_end_needs_nothing(self) -> None:
        async with listening() as site:
            bench = site.site.bench
            wire = await site.admitted()
            await wire.open(1, open_request("log", 0))
            wire.say(frames.Finish(0), 1)
            await wire.hear(frames.Finished, 1)
            gate = bench.catalog.gates["open"]
            gate.after.clear()
            wire.say(open_request("log", 0), 2)
            await until(lambda: gate.asked == 2)
            (connection,) = site.server._connections
            connection.abort()
            await until(lambda: site.connections == 0)
            gate.after.set()
            await until(lambda: len(bench.tasks) == 0)


@on_uvloop
class TestQuery:
    async def test_what_is_not_known_and_what_is_under_way(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            wire.say(frames.Query("log"), 9)
            assert (await wire.hear(frames.Status, 9)).state is UploadState.NONE
            opened = await wire.open(1, open_request("log"))
            await wire.upload(1, 0, b"abc")
            wire.say(frames.Query("log"), 9)
            status = await wire.hear(frames.Status, 9)
            assert status == frames.Status(
                opened.upload_id, UploadState.RECEIVING, 3, SIZE_UNKNOWN, int(SETTINGS.cleanup.stale_s)
            )

    async def test_a_status_has_the_ranges_beyond_n(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            wire.send(chunk(1, 10, b"xyz"))
            await wire.hear(frames.Ack, 1)
            wire.say(frames.Query("log"), 9)
            status = await wire.hear(frames.Status, 9)
            assert (status.next_expected_byte, status.ranges) == (0, (Span(10, 13),))

    async def test_an_invalid_name_is_not_looked_up(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            wire.say(frames.Query("a\nb"))
            assert (await wire.hear(frames.Status)).state is UploadState.NONE
            assert site.site.bench.catalog.gates["find"].asked == 0

    async def test_a_catalog_that_fails_ends_the_connection(self) -> None:
        async with listening() as site:
            site.site.bench.catalog.gates["find"].failures.append(FAILED)
            wire = await site.admitted()
            wire.say(frames.Query("log"), 3)
            assert (await wire.hear(frames.Error)).code == ErrorCode.INTERNAL
            assert site.server.phases()[ConnectionPhase.OPEN] <= 1


@on_uvloop
class TestWaits:
    async def test_every_error_that_asks_a_device_to_wait_names_a_random_time(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            site.site.bench.catalog.gates["open"].failures.append(FAILED)
            wire.say(frames.Open(Disposition.RESUME_OR_CREATE, 10, "log"), 1)
            of_stream = await wire.hear(frames.Error, 1)
            site.site.bench.catalog.gates["find"].failures.append(FAILED)
            wire.say(frames.Query("log"), 3)
            of_connection = await wire.hear(frames.Error)
            # The entropy of the tests gives the upper end.
            assert [each.wait_ms for each in (of_stream, of_connection)] == [2 * WAIT_MS] * 2


async def test_events_before_their_time_are_a_fault_of_ours() -> None:
    site = Site()
    policy = policy_of()
    session = Session(
        ServerConnection(policy.limits, Pool(), 0, lambda: WAIT_MS), _Deaf(), site.services(), policy.session, ""
    )
    with pytest.raises(ValueError, match="before a HELLO"):
        await session._check_proof(b"")
    await session._open(1, open_request("log"))
    await session._query(1, "log")


class _Deaf:
    """A wire on which nothing is sent."""

    def admit(self, tenant: str, device: str) -> None: ...

    def changed(self) -> None: ...
