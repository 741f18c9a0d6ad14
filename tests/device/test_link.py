"""One connection: keep-alive, silence, token refresh, going away, and a server that breaks the protocol."""

import asyncio
import random
from collections.abc import Callable
from functools import partial

import pytest

from device.client import Uplink
from device.credentials import TokenCredentials
from device.exceptions import UnreachableError
from device.link import LINGER_S, READ_BYTES
from protocol import codec, frames
from protocol.client import ClientConnection
from protocol.constants import CHUNK_OVERHEAD_BYTES, STREAM_MAX, Action, UploadState
from protocol.errors import ErrorCode
from protocol.events import ServerEvent
from tests.device.conftest import Uplinks
from tests.support.fake_server import FakeServer, Script, Session, deque_of, error_frame
from tests.support.fake_time import FakeTime
from tests.support.waiting import until
from tests.support.welcomes import WELCOME, replaced

DATA = random.Random(7).randbytes(700_000)


def ignore(session: Session, event: ServerEvent) -> None:
    """Say nothing."""
    session.server.stored_bytes += 1


def mute(session: Session, event: ServerEvent) -> None:
    session.mute()


async def test_the_window_is_obeyed_over_all_streams(server: FakeServer, uplinks: Uplinks) -> None:
    """The server's end of the protocol ends the connection when it is not."""
    server.scripts.append(Script(welcome=replaced(window_bytes=100_000)))
    async with uplinks(chunk_bytes=30_000) as uplink:
        await asyncio.gather(*(uplink.send(DATA, f"{n}") for n in range(4)))
    assert len(server.sessions) == 1
    assert all(stored.data == DATA for stored in server.files.values())


async def test_a_chunk_is_no_larger_than_the_server_or_the_window_takes(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(welcome=replaced(window_bytes=5000, chunk_bytes_max=100_000)))
    server.scripts.append(Script(welcome=replaced(chunk_bytes_max=3000)))
    async with uplinks() as uplink:
        await uplink.send(DATA[:50_000], "one")
        server.sessions[0].cut()
        await uplink.send(DATA[:50_000], "two")
    assert server.files["two"].data == DATA[:50_000]
    assert len(server.sessions) == 2


async def test_a_window_for_one_chunk_is_enough(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(welcome=replaced(chunk_bytes_max=3000, window_bytes=3000 + CHUNK_OVERHEAD_BYTES)))
    async with uplinks() as uplink:
        await asyncio.gather(*(uplink.send(DATA[:20_000], f"{n}") for n in range(2)))
    assert len(server.sessions) == 1
    assert [stored.data for stored in server.files.values()] == [DATA[:20_000]] * 2


async def test_no_more_streams_are_open_than_allowed(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    server.scripts.append(Script(welcome=replaced(streams_max=2)))
    async with uplinks() as uplink:
        await asyncio.gather(*(uplink.send(DATA[:9000], f"{n}") for n in range(9)))
    assert time.slept == []
    assert len(server.files) == 9


async def test_pings_are_answered(server: FakeServer, uplinks: Uplinks) -> None:
    pings: list[bytes] = []

    def ping(session: Session, event: ServerEvent) -> None:
        session.raw(codec.encode(frames.Ping(77)))
        session.answer(event)

    server.scripts.append(Script(opens=deque_of(ping), pongs=pings))
    async with uplinks() as uplink:
        await uplink.send(b"", "log.bin")
    assert pings == [codec.encode(frames.Pong(77))]


async def test_a_quiet_server_is_pinged_and_kept(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    server.scripts.append(Script(finishes=deque_of(ignore)))
    async with uplinks() as uplink:
        sending = asyncio.create_task(uplink.send(DATA, "log.bin"))
        session = await the_session(server, lambda: server.stored_bytes > len(DATA))
        for _ in range(5):
            # Small ticks: the answer needs real time to arrive before the device takes the link for dead.
            await tick_until(time, 0.1, hears_more(session))
        assert not sending.done()
        session.connection.finished(1, frames.Finished(1, len(DATA), server.files["log.bin"].crc32c))
        session.flush()
        await sending
    assert len(server.sessions) == 1


async def test_a_server_that_only_pings_is_kept(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    """As one does that receives a chunk for longer than the client would wait."""
    held: list[ServerEvent] = []

    def hold(session: Session, event: ServerEvent) -> None:
        held.append(event)

    server.scripts.append(Script(finishes=deque_of(hold)))
    async with uplinks() as uplink:
        sending = asyncio.create_task(uplink.send(DATA, "log.bin"))
        session = await the_session(server, lambda: held)
        for number in range(10):
            session.raw(codec.encode(frames.Ping(number)))
            await until(partial(session.script.pongs.__contains__, codec.encode(frames.Pong(number))))
            time.tick(0.9 * WELCOME.keepalive_s)
        assert not sending.done()
        session.go_on(held[0])
        await sending
    assert len(server.sessions) == 1


async def test_a_silent_server_is_given_up_and_the_upload_resumes(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    server.scripts.append(Script(chunks=deque_of(mute)))
    async with uplinks() as uplink:
        sending = asyncio.create_task(uplink.send(DATA, "log.bin"))
        await the_session(server, lambda: server.sessions[0].is_mute)
        began = time.now
        await tick_until(time, 1.0, lambda: len(server.sessions) == 2)
        assert time.now - began >= 2 * WELCOME.keepalive_s
        sent = await sending
    assert sent.resumes == 1
    assert server.files["log.bin"].data == DATA


@pytest.mark.parametrize("where", ["opens", "chunks", "finishes"])
async def test_going_away_is_obeyed_and_nothing_is_sent_again(
    where: str, server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    def answer_and_go(session: Session, event: ServerEvent) -> None:
        session.answer(event)
        session.connection.go_away(1500, "an upgrade")

    script = Script()
    getattr(script, where).append(answer_and_go)
    server.scripts.append(script)
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin")
        await uplink.send(DATA[:100], "next")
    assert sent.resent_bytes == 0
    assert time.slept == [1.9]
    assert len(server.sessions) == 2
    assert server.files["log.bin"].data == DATA
    hello = server.sessions[1].hello
    assert hello is not None
    assert hello.hello.last_end == ErrorCode.SHUTTING_DOWN


async def test_nothing_is_opened_at_a_server_that_goes_away(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    held: list[ServerEvent] = []

    def hold_and_go(session: Session, event: ServerEvent) -> None:
        held.append(event)
        session.connection.go_away(1500, "an upgrade")

    server.scripts.append(Script(finishes=deque_of(hold_and_go)))
    async with uplinks() as uplink:
        first = asyncio.create_task(uplink.send(DATA, "log.bin"))
        session = await the_session(server, lambda: held)
        await uplink.status("log.bin")
        second = asyncio.create_task(uplink.send(DATA[:100], "another-file", identify=False))
        for _ in range(2):
            # Would come back after the second upload's OPEN had arrived.
            await uplink.status("log.bin")
        session.go_on(held[0])
        await asyncio.gather(first, second)
    assert b"another-file" not in session.received
    assert len(server.sessions) == 2


async def test_a_server_that_goes_away_may_close_at_any_time(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    def go(session: Session, event: ServerEvent) -> None:
        session.connection.go_away(1500, "an upgrade")
        session.hang_up()

    server.scripts.append(Script(chunks=deque_of(go)))
    async with uplinks() as uplink:
        # Little, so that nothing is written to a socket that the server has reset: that would lose its last words.
        await uplink.send(DATA[:100], "log.bin")
    assert time.slept == [1.9]
    assert server.files["log.bin"].data == DATA[:100]


async def test_waiting_for_the_acknowledgements_of_a_server_that_goes_away_has_a_limit(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    def go(session: Session, event: ServerEvent) -> None:
        session.connection.go_away(1500, "an upgrade")
        session.connection.send(0, frames.Ping(7))

    script = Script(chunks=deque_of(go))
    server.scripts.append(script)
    async with uplinks() as uplink:
        sending = asyncio.create_task(uplink.send(DATA, "log.bin"))
        # The PONG shows that the device has read the GOAWAY in front of the PING.
        await until(lambda: script.pongs)
        began = time.now
        await tick_until(time, 1.0, lambda: len(server.sessions) == 2)
        assert LINGER_S <= time.now - 1.9 - began < LINGER_S + 100
        await sending
    assert time.slept[0] == 1.9


async def test_a_server_that_breaks_the_protocol_is_left(server: FakeServer, uplinks: Uplinks) -> None:
    def babble(session: Session, event: ServerEvent) -> None:
        session.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server.scripts.append(Script(opens=deque_of(babble)))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].data == DATA
    assert len(server.sessions) == 2


async def test_another_service_on_the_port_is_named(server: FakeServer, uplinks: Uplinks) -> None:
    def babble(session: Session, event: ServerEvent) -> None:
        session.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server.scripts.append(Script(hellos=deque_of(babble)))
    async with uplinks(attempts_max=1) as uplink:
        with pytest.raises(UnreachableError, match="the server broke the protocol"):
            await uplink.send(DATA, "log.bin")


async def test_the_client_reconnects_when_all_stream_numbers_are_used(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        await uplink.send(DATA, "one")
        link = uplink._connector._link
        assert link is not None
        link._connection._stream = STREAM_MAX
        await uplink.send(DATA, "two")
    assert server.files["two"].data == DATA
    assert len(server.sessions) == 2


async def test_events_of_streams_nobody_waits_for_are_dropped(server: FakeServer, uplinks: Uplinks) -> None:
    def stray(session: Session, event: ServerEvent) -> None:
        session.raw(codec.encode(frames.Ack(5), 99) + error_frame(ErrorCode.FENCED, Action.LEAVE, 98))
        session.answer(event)

    server.scripts.append(Script(chunks=deque_of(stray)))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].state is UploadState.COMPLETE


def test_answers_fit_into_what_is_read_at_a_time() -> None:
    hello = frames.Hello(1, 0, 8192, token="t")
    client = ClientConnection(hello)
    assert client.receive(codec.encode(WELCOME) + codec.encode(frames.Ping(1)) * (READ_BYTES // 12))


async def the_session(server: FakeServer, condition: Callable[[], object]) -> Session:
    """The first connection, once the condition holds."""
    await until(lambda: server.sessions and condition())
    return server.sessions[0]


def hears_more(session: Session) -> Callable[[], bool]:
    """Whether more has arrived since now."""
    heard = session.received_bytes
    return lambda: session.received_bytes > heard


async def tick_until(time: FakeTime, seconds: float, condition: Callable[[], object]) -> None:
    """Let time pass tick by tick until the condition holds."""

    def ticked() -> object:
        time.tick(seconds)
        return condition()

    await until(ticked)


async def test_a_server_that_never_answers_hello_times_out(server: FakeServer, time: FakeTime) -> None:
    server.scripts.append(Script(hellos=deque_of(mute)))
    async with Uplink(
        "127.0.0.1",
        server.port,
        TokenCredentials("t"),
        connect_timeout_s=0.05,
        attempts_max=1,
        clock=time.clock,
        sleep=time.sleep,
    ) as uplink:
        with pytest.raises(UnreachableError, match="did not answer within"):
            await uplink.send(DATA, "log.bin")
