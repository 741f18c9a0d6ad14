"""Every break of the link: uploads resume, attempts back off, and stop at the caller's limits."""

import asyncio
import random
import ssl

import pytest

from device.client import Uplink
from device.credentials import SecretCredentials, TokenCredentials
from device.exceptions import UnreachableError, UploadFailed
from protocol import frames
from protocol.constants import Action, ChecksumKind, Disposition, Feature, UploadState
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, ServerEvent
from protocol.handshake import device_key
from tests.device.conftest import Uplinks
from tests.support.content import DATA, DIGEST
from tests.support.fake_server import FakeServer, Script, Session, breaks_connection, deque_of
from tests.support.fake_time import FakeTime
from tests.support.waiting import until


@pytest.mark.parametrize("seed", range(12))
async def test_cut_at_random_points_the_file_arrives_bit_for_bit(
    seed: int, server: FakeServer, uplinks: Uplinks
) -> None:
    chance = random.Random(seed)
    server.scripts.extend(Script(cut_after_bytes=chance.choice([1, 60, 100, 200_000, 400_000])) for _ in range(6))
    contents = {f"file-{n}": chance.randbytes(chance.randrange(300_000)) for n in range(3)}
    async with uplinks(chunk_bytes=chance.choice([1000, 30_000, 250_000]), random=chance.random) as uplink:
        sent = await asyncio.gather(*(uplink.send(data, name) for name, data in contents.items()))
    assert {name: stored.data for name, stored in server.files.items()} == contents
    assert all(each.sent_bytes - each.resent_bytes == each.size for each in sent)
    assert {stored.state for stored in server.files.values()} == {UploadState.COMPLETE}


async def test_a_later_process_resumes(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(cut_after_bytes=400_000))
    async with uplinks(attempts_max=1) as first:
        server.scripts.append(Script(hellos=deque_of(breaks_connection(ErrorCode.INTERNAL))))
        with pytest.raises(UnreachableError):
            await first.send(DATA, "log.bin")
    held = server.files["log.bin"].ranges.next_expected_byte
    assert held > 0
    async with uplinks() as second:
        sent = await second.send(DATA, "log.bin")
    assert server.files["log.bin"].data == DATA
    assert (sent.resumes, sent.sent_bytes, sent.resent_bytes) == (1, len(DATA) - held, 0)


async def test_a_lost_last_answer_heals(server: FakeServer, uplinks: Uplinks) -> None:
    def finish_unheard(session: Session, event: ServerEvent) -> None:
        session.answer(event)
        session.connection.data_to_send(0.0)
        session.cut()

    server.scripts.append(Script(finishes=deque_of(finish_unheard)))
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin", sha256=DIGEST)
    assert (sent.upload_id, sent.crc32c, sent.sha256) == (100, server.files["log.bin"].crc32c, DIGEST)
    assert (sent.resumes, sent.resent_bytes) == (1, 0)


async def test_breaks_back_off_and_progress_resets_it(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    server.scripts.extend(Script(cut_after_bytes=1) for _ in range(8))
    server.scripts.append(Script(cut_after_bytes=300_000))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert time.slept == pytest.approx([0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 24, 24, 0.04])


async def test_a_good_link_is_tried_again_at_once_but_only_once(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    server.scripts.extend(Script(cut_after_bytes=count) for count in (300_000, 1, 1))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert time.slept == pytest.approx([0.04, 0.4, 0.8])


@pytest.mark.parametrize("with_secret", [False, True])
async def test_open_does_not_wait_for_welcome(with_secret: bool, server: FakeServer, uplinks: Uplinks) -> None:
    secret = b"s" * 32
    server.device_key = device_key(secret)
    held: list[ServerEvent] = []
    scripts = [Script(challenge=b"c" * 32 if with_secret else None) for _ in range(2)]
    scripts[0].cut_after_bytes = 300_000
    getattr(scripts[1], "proofs" if with_secret else "hellos").append(lambda _, event: held.append(event))
    server.scripts.extend(scripts)
    async with uplinks(SecretCredentials("cam-1", secret) if with_secret else None) as uplink:
        sending = asyncio.create_task(uplink.send(DATA, "log.bin"))
        await until(lambda: held)
        session, before = server.sessions[1], server.sessions[1].handshake_bytes
        await until(lambda: session.received_bytes > before)
        session.go_on(held[0])
        await sending
    assert server.files["log.bin"].data == DATA
    assert len(server.sessions) == 2


async def test_open_waits_for_required_features(server: FakeServer, uplinks: Uplinks) -> None:
    held: list[ServerEvent] = []
    server.scripts.append(Script(hellos=deque_of(lambda _, event: held.append(event))))
    async with uplinks(features_required=Feature.CHUNK_CRC32C) as uplink:
        sending = [asyncio.create_task(uplink.send(DATA, name)) for name in ("one", "two")]
        await until(lambda: held)
        session = server.sessions[0]
        assert session.received_bytes == session.handshake_bytes
        session.go_on(held[0])
        await asyncio.gather(*sending)
    assert {stored.data == DATA for stored in server.files.values()} == {True}


async def test_a_server_that_does_not_answer_the_handshake_is_given_up(server: FakeServer) -> None:
    server.scripts.extend(Script(hellos=deque_of(lambda session, _: session.mute())) for _ in range(2))
    async with Uplink(
        "127.0.0.1", server.port, TokenCredentials("t"), attempts_max=2, connect_timeout_s=0.1, random=lambda: 0.0
    ) as uplink:
        with pytest.raises(UnreachableError, match=r"did not answer within 0\.1 s"):
            await uplink.send(DATA, "log.bin")


async def test_an_unreachable_server_is_reported_after_the_attempts_allowed(server: FakeServer, time: FakeTime) -> None:
    calls = 0

    async def refuse() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        nonlocal calls
        calls += 1
        raise ConnectionRefusedError(111, "Connection refused")

    async with Uplink(
        "10.0.0.1", 7, TokenCredentials("t"), attempts_max=3, connect=refuse, clock=time.clock, sleep=time.sleep
    ) as uplink:
        with pytest.raises(UnreachableError, match=r"10\.0\.0\.1:7 cannot be reached: .*refused; given up after 3"):
            await uplink.send(DATA, "log.bin")
    assert calls == 3


async def test_one_attempt_serves_all_who_wait(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.extend(Script(cut_after_bytes=1) for _ in range(3))
    async with uplinks(attempts_max=3) as uplink:
        sendings = (uplink.send(DATA, f"{n}", identify=False) for n in range(5))
        outcomes = await asyncio.gather(*sendings, return_exceptions=True)
    assert all(isinstance(outcome, UnreachableError) for outcome in outcomes)
    assert len(server.sessions) == 3


async def test_a_deadline_without_progress(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.extend(Script(cut_after_bytes=1) for _ in range(20))
    async with uplinks(deadline_s=100) as uplink:
        with pytest.raises(UnreachableError, match="given up after 100 s"):
            await uplink.send(DATA, "log.bin")


async def test_connecting_times_out(time: FakeTime) -> None:
    async def hang() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await asyncio.Event().wait()
        raise AssertionError

    async with Uplink(
        "10.0.0.1",
        7,
        TokenCredentials("t"),
        attempts_max=2,
        connect=hang,
        connect_timeout_s=0,
        clock=time.clock,
        sleep=time.sleep,
    ) as uplink:
        with pytest.raises(UnreachableError, match="did not answer within 0 s"):
            await uplink.status("log.bin")


async def test_an_untrusted_certificate_is_final(time: FakeTime) -> None:
    async def distrust() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise error

    async with Uplink("10.0.0.1", 7, TokenCredentials("t"), connect=distrust, clock=time.clock) as uplink:
        with pytest.raises(UploadFailed, match="not trusted: self-signed") as caught:
            await uplink.send(DATA, "log.bin")
    assert (caught.value.code, caught.value.action) == (0, Action.GIVE_UP)


async def test_opened_alone_is_no_progress(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    """R12.6: a server that resumes each time, and breaks before it acknowledges more, is not tried at once."""

    def open_and_hang_up(session: Session, event: ServerEvent) -> None:
        session.answer(event)
        session.hang_up()

    stored = server.create(frames.Open(Disposition.RESUME_OR_CREATE, len(DATA), "log.bin", tag=DIGEST))
    stored.write(ChunksReceived(1, 0, 1000, (DATA[:1000],), 1, ChecksumKind.CRC32C, None))
    server.scripts.extend(Script(opens=deque_of(open_and_hang_up)) for _ in range(3))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert time.slept == [0.4, 0.8, 1.6]
