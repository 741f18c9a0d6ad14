"""A token is replaced before it expires."""

import asyncio

from device.credentials import TokenCredentials
from device.exceptions import CredentialError
from device.token_refresh import RETRY_S
from protocol.events import ServerEvent
from tests.device.conftest import Uplinks
from tests.support.content import DATA
from tests.support.fake_server import FakeServer, Script, Session, deque_of
from tests.support.fake_time import FakeTime
from tests.support.waiting import until
from tests.support.welcomes import replaced


def ignore(session: Session, event: ServerEvent) -> None:
    """Say nothing."""


async def test_the_token_is_refreshed_at_two_thirds_of_its_time(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    async def token() -> str:
        return f"token-at-{time.now:g}"

    server.scripts.append(Script(welcome=replaced(authority_s=90), finishes=deque_of(ignore)))
    async with uplinks(TokenCredentials(token)) as uplink:
        sending = asyncio.create_task(uplink.send(DATA, "log.bin"))
        await until(lambda: server.tokens)
        assert time.slept == [60.0]
        assert server.tokens == ["token-at-1060"]
        sending.cancel()
        await asyncio.wait([sending])


async def test_a_refresh_is_tried_again_while_there_is_no_token(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        if calls in {2, 3}:
            raise CredentialError("the issuer is away")
        return f"token-{calls}"

    server.scripts.append(Script(welcome=replaced(authority_s=90)))
    async with uplinks(TokenCredentials(token)) as uplink:
        await uplink.status("log.bin")
        await until(lambda: server.tokens)
    assert server.tokens == ["token-4"]
    assert time.slept == [60.0, RETRY_S, RETRY_S]


async def test_a_fixed_token_is_not_refreshed(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    server.scripts.append(Script(welcome=replaced(authority_s=90)))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert time.slept == []
    assert server.tokens == []
