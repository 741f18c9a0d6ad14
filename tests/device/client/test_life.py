"""The life of a client: closed, cancelled, idle, and never begun with impossible settings."""

import asyncio
from collections.abc import Callable

import pytest

from device.client import Uplink
from device.credentials import TokenCredentials
from protocol.events import ServerEvent
from tests.device.conftest import Uplinks
from tests.support.content import DATA
from tests.support.fake_server import FakeServer, Script, Session, deque_of
from tests.support.fake_time import FakeTime
from tests.support.waiting import until


async def test_a_closed_client_takes_no_work(uplinks: Uplinks) -> None:
    uplink = uplinks()
    await uplink.close()
    with pytest.raises(RuntimeError, match="closed"):
        await uplink.send(DATA, "log.bin")


async def test_closing_ends_an_attempt_under_way(time: FakeTime) -> None:
    begun = asyncio.Event()

    async def hang() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    uplink = Uplink("10.0.0.1", 7, TokenCredentials("t"), connect=hang, clock=time.clock)
    sending = asyncio.create_task(uplink.send(DATA, "log.bin"))
    await begun.wait()
    sending.cancel()
    await asyncio.wait([sending])
    await uplink.close()
    assert sending.cancelled()


async def test_a_cancelled_upload_can_be_resumed_on_the_same_connection(server: FakeServer, uplinks: Uplinks) -> None:
    def pause(session: Session, event: ServerEvent) -> None:
        session.server.stored_bytes += 1

    server.scripts.append(Script(chunks=deque_of(pause)))
    async with uplinks() as uplink:
        first = asyncio.create_task(uplink.send(DATA, "log.bin"))
        await until(lambda: server.stored_bytes)
        first.cancel()
        await asyncio.wait([first])
        await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].data == DATA
    assert len(server.sessions) == 1


async def test_an_idle_connection_that_ends_is_made_again_when_needed(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        await uplink.send(DATA, "one")
        server.sessions[0].hang_up()
        await until(server.sessions[0].writer.is_closing)
        await uplink.send(DATA, "two")
    assert server.files["two"].data == DATA


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Uplink("h", 1, TokenCredentials("t"), chunk_bytes=0), "chunk_bytes 0"),
        (lambda: Uplink("h", 1, TokenCredentials("t"), agent="a" * 65), "agent and agent_version"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], Uplink], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()
