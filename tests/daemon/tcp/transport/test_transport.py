"""Between a socket and a session: input, slow readers, half-close, PROXY headers, TLS and last words; real sockets."""

import asyncio
import gc
import ssl

import pytest

from daemon.sections import Limits
from daemon.settings import Settings
from daemon.tcp import transport as connection_module
from daemon.tcp.flow import STALLED_S, PauseReason
from daemon.tcp.session import Session
from daemon.telemetry.metrics import CloseReason
from protocol import codec, frames
from protocol.constants import UploadState
from protocol.errors import ErrorCode
from protocol.server import TURN_COST
from tests.support.certificates import Certificate, make_certificate
from tests.support.device_site import DEVICE, Listening, listening, on_uvloop, only, policy_of
from tests.support.raw_device import chunk, heard_all, open_request, raw, token_hello, whole_upload
from tests.support.waiting import until

LARGE = 700 * 1024
"""A frame that needs a lease of its own."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def closed(site: Listening, reason: CloseReason) -> int:
    return site.site.bench.metrics.connections_closed[reason]


@on_uvloop
class TestInput:
    async def test_what_follows_without_waiting_is_taken_in_order(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.send(whole_upload(site.site.token()))
            await heard_all(wire)

    async def test_what_follows_a_proof_without_waiting_is_taken_in_order(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            reply = await wire.prove(DEVICE, b"s" * 32)
            assert isinstance(reply.frame, frames.Welcome)
            wire.send(codec.encode(open_request("log"), 1) + chunk(1, 0, b"abc") + codec.encode(frames.Finish(3), 1))
            await wire.hear(frames.Opened, 1)
            while not isinstance((await wire.reply()).frame, frames.Finished):
                pass

    async def test_data_that_is_there_already_is_acknowledged_again(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            await wire.upload(1, 0, b"abc")
            wire.send(chunk(1, 0, b"abc") * 3)
            assert (await wire.hear(frames.Ack, 1)).next_expected_byte == 3

    async def test_a_large_frame_arrives_in_memory_of_its_own(self) -> None:
        async with listening() as site:
            site.site.bench.disk.free_bytes = 2**40
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            await wire.upload(1, 0, bytes(LARGE))


@on_uvloop
class TestNotReading:
    async def test_a_device_that_does_not_read_is_cut_and_costs_little(self) -> None:
        limits = Limits(outgoing_bytes_max=16 * 1024, keepalive_s=60, idle_timeout_s=180)
        async with listening(policy_of(Settings(limits=limits))) as site:
            wire = await site.admitted()
            pings = codec.encode(frames.Ping(1)) * 4096
            flooding = asyncio.create_task(wire.flood(pings))
            connection = next(iter(site.server._connections))
            await until(lambda: connection._flow.reasons & PauseReason.PEER)
            assert connection._transport is not None
            assert connection._transport.get_write_buffer_size() < 2 * limits.outgoing_bytes_max
            # Its silence is not held against it for as long as it is not read.
            await site.pass_s(STALLED_S - 1)
            assert site.site.bench.metrics.errors.total() == 0
            await site.pass_s(1)
            assert site.site.bench.metrics.errors[ErrorCode.NOT_READING] == 1
            connection.abort()
            with pytest.raises(ConnectionError):
                await flooding
            await until(lambda: closed(site, CloseReason.ERROR) == 1)

    async def test_one_that_reads_late_misses_nothing(self) -> None:
        limits = Limits(outgoing_bytes_max=16 * 1024)
        async with listening(policy_of(Settings(limits=limits))) as site:
            wire = await site.admitted()
            flooding = asyncio.create_task(wire.flood(codec.encode(frames.Ping(1)) * 4096))
            connection = next(iter(site.server._connections))
            await until(lambda: connection._flow.reasons & PauseReason.PEER)
            flooding.cancel()
            for _ in range(4096):
                await wire.hear(frames.Pong)
            await until(lambda: not connection._flow.reasons & PauseReason.PEER or flooding.done())


@on_uvloop
class TestHalfClose:
    async def test_acks_first_then_the_close(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.send(whole_upload(site.site.token()))
            wire.end()
            await heard_all(wire)
            await wire.ended()
            await until(lambda: closed(site, CloseReason.DEVICE) == 1)

    async def test_an_answer_that_the_catalog_owes_is_waited_for(self) -> None:
        async with listening() as site:
            find = site.site.bench.catalog.gates["find"]
            find.before.clear()
            wire = await site.admitted()
            wire.say(frames.Query("log"), 5)
            wire.end()
            await until(lambda: find.asked)
            find.before.set()
            assert (await wire.hear(frames.Status, 5)).state is UploadState.NONE
            await wire.ended()

    async def test_an_abort_is_waited_for(self) -> None:
        async with listening() as site:
            end = site.site.bench.catalog.gates["end"]
            end.before.clear()
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            wire.say(frames.Abort(), 1)
            wire.end()
            await until(lambda: end.asked)
            end.before.set()
            await wire.hear(frames.Aborted, 1)
            await wire.ended()

    async def test_it_gets_the_answers_to_all_that_it_has_sent_however_many_turns_they_take(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            wire.send(codec.encode(frames.Ping(1)) * (3 * TURN_COST))
            wire.end()
            for _ in range(3 * TURN_COST):
                await wire.hear(frames.Pong)
            await wire.ended()

    async def test_with_nothing_under_way_it_is_closed_at_once(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            wire.end()
            await wire.ended()


@on_uvloop
class TestLastWords:
    async def test_they_arrive_though_the_device_goes_on_to_send(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.send(raw(0x7F, b"") + bytes(512 * 1024))
            refused = await wire.hear(frames.Refused)
            assert refused.code == ErrorCode.MAGIC_WRONG
            await wire.ended()

    async def test_a_device_that_goes_on_and_on_is_cut_off(self) -> None:
        async with listening() as site:
            wire = await site.connect()
            wire.send(raw(0x7F, b""))
            await wire.hear(frames.Refused)
            with pytest.raises(ConnectionError):
                await wire.flood(bytes(64 * 1024))
            await until(lambda: closed(site, CloseReason.ERROR) == 1)

    async def test_a_device_that_never_closes_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection_module, "LAST_WORDS_DISCARD_S", 0.01)
        async with listening() as site:
            wire = await site.connect()
            wire.send(raw(0x7F, b""))
            await wire.hear(frames.Refused)
            await until(lambda: closed(site, CloseReason.ERROR) == 1)

    async def test_behind_them_nothing_is_written(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            opened = await wire.open(1, open_request("log"))
            connection = next(iter(site.server._connections))
            connection.close()
            # Results of the upload now have nowhere to go, and must not fail their sender.
            other = await site.admitted()
            assert (await other.open(1, open_request("log"))).upload_id == opened.upload_id
            await wire.ended()

    async def test_a_reset_is_a_loss(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            wire.hang_up()
            await until(lambda: site.connections == 0)
            assert closed(site, CloseReason.LOST) + closed(site, CloseReason.DEVICE) == 1

    async def test_nothing_of_it_waits_for_a_collection_of_cycles(self) -> None:
        async with listening() as site:
            wire = await site.admitted()
            await wire.open(1, open_request("log"))
            number = id(only(site))
            gc.collect()
            gc.disable()
            try:
                wire.hang_up()
                await until(lambda: site.connections == 0)
                await until(lambda: not any(type(each) is Session for each in gc.get_objects() if id(each) == number))
            finally:
                gc.enable()


@on_uvloop
class TestTls:
    async def test_a_whole_upload(self, certificate: Certificate) -> None:
        async with listening(tls=contexts(certificate)) as site:
            wire = await site.connect()
            wire.send(whole_upload(site.site.token()))
            await heard_all(wire)

    async def test_last_words_arrive_though_the_device_goes_on_to_send(self, certificate: Certificate) -> None:
        async with listening(tls=contexts(certificate)) as site:
            wire = await site.connect()
            wire.send(raw(0x7F, b"") + bytes(512 * 1024))
            assert (await wire.hear(frames.Refused)).code == ErrorCode.MAGIC_WRONG
            wire.hang_up()
            await until(lambda: site.connections == 0)

    async def test_one_connection_too_many_is_refused_inside_tls(self, certificate: Certificate) -> None:
        async with listening(policy_of(connections_max=1), tls=contexts(certificate)) as site:
            await site.admitted()
            wire = await site.connect()
            wire.say(token_hello(site.site.token()))
            assert (await wire.hear(frames.Refused)).code == ErrorCode.TOO_MANY_CONNECTIONS

    async def test_a_device_that_closes_is_closed(self, certificate: Certificate) -> None:
        async with listening(tls=contexts(certificate)) as site:
            wire = await site.admitted()
            wire._writer.close()
            await until(lambda: closed(site, CloseReason.DEVICE) == 1)


def contexts(certificate: Certificate) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and that of a device that trusts it."""
    device = ssl.create_default_context(cafile=certificate.path)
    return certificate.server_context(), device
