"""The action of every error that ends a connection, and the credentials that some of them ask for."""

import pytest

from device.credentials import TokenCredentials
from device.exceptions import UnreachableError, UploadFailed
from protocol import codec, frames
from protocol.constants import Action
from protocol.errors import ErrorCode, ErrorScope
from tests.device.conftest import Uplinks
from tests.support.content import DATA
from tests.support.fake_server import FakeServer, Hook, Script, breaks_connection, deque_of
from tests.support.fake_time import FakeTime
from tests.support.token_issuer import Tokens

CONNECTION_CODES = [code for code in ErrorCode if code.scope is ErrorScope.CONNECTION]


@pytest.mark.parametrize("code", CONNECTION_CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("moment", ["refused", "later"])
async def test_the_action_of_each_connection_error(
    code: ErrorCode, moment: str, server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    hook = deque_of(breaks_connection(code))
    server.scripts.append(Script(hellos=hook) if moment == "refused" else Script(opens=hook))
    tokens = Tokens()
    async with uplinks(TokenCredentials(tokens)) as uplink:
        if code.action is Action.GIVE_UP or (code.action is Action.REAUTHENTICATE and moment == "refused"):
            with pytest.raises(UploadFailed, match=f"{code.name}: said {code.name}") as caught:
                await uplink.send(DATA, "log.bin")
            assert (caught.value.code, caught.value.action) == (code, code.action)
            assert len(server.sessions) == 1
            return
        await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].data == DATA
    assert len(server.sessions) == 2
    assert time.slept == [5.4 if code.action is Action.WAIT else 0.4]
    assert tokens.count == (2 if code.action is Action.REAUTHENTICATE else 1)
    again = server.sessions[1].hello
    assert again is not None
    assert again.hello.last_end == code
    assert again.hello.token == f"token-{tokens.count}"


async def test_back_off_comes_on_top_of_the_wait_that_the_server_names(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    """R12.7, for a connection and for a stream, whatever the action is."""

    def reopen(stream: int) -> Hook:
        error = codec.encode(frames.Error(ErrorCode.STREAM_UNKNOWN, Action.REOPEN, 2500), stream)
        return lambda session, _: session.raw(error)

    server.scripts.append(Script(opens=deque_of(reopen(1))))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
        server.sessions[0].script.opens.append(reopen(0))
        await uplink.send(DATA, "next.bin")
    assert time.slept == [2.9, 2.9]


async def test_a_device_that_is_told_to_wait_again_and_again_comes_less_often(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    waits = (breaks_connection(ErrorCode.TOO_MANY_CONNECTIONS, 6000) for _ in range(4))
    server.scripts.extend(Script(hellos=deque_of(each)) for each in waits)
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert time.slept == [6.4, 6.8, 7.6, 9.2]


async def test_a_refused_token_that_was_used_before_is_replaced(server: FakeServer, uplinks: Uplinks) -> None:
    tokens = Tokens()
    server.scripts.append(Script(cut_after_bytes=300_000))
    server.scripts.append(Script(hellos=deque_of(breaks_connection(ErrorCode.TOKEN_EXPIRED))))
    async with uplinks(TokenCredentials(tokens)) as uplink:
        await uplink.send(DATA, "log.bin")
    assert tokens.count == 2


async def test_a_fixed_token_cannot_be_replaced(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(opens=deque_of(breaks_connection(ErrorCode.TOKEN_EXPIRED))))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed) as caught:
            await uplink.send(DATA, "log.bin")
    assert caught.value.action is Action.REAUTHENTICATE


async def test_trouble_with_the_issuer_passes(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    tokens = Tokens()
    tokens.troubles = 2
    async with uplinks(TokenCredentials(tokens)) as uplink:
        await uplink.send(DATA, "log.bin")
    assert time.slept == [0.4, 0.8]


async def test_trouble_with_the_issuer_is_named_when_it_does_not(server: FakeServer, uplinks: Uplinks) -> None:
    tokens = Tokens()
    tokens.troubles = 2
    async with uplinks(TokenCredentials(tokens), attempts_max=2) as uplink:
        with pytest.raises(UnreachableError, match="there is no credential: the issuer does not answer"):
            await uplink.send(DATA, "log.bin")


async def test_a_bug_of_the_callback_reaches_the_caller(server: FakeServer, uplinks: Uplinks) -> None:
    async def broken() -> str:
        raise ZeroDivisionError

    async with uplinks(TokenCredentials(broken)) as uplink:
        with pytest.raises(ZeroDivisionError):
            await uplink.send(DATA, "log.bin")
