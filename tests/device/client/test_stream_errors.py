"""The action of every error that ends a stream, and what the caller allows: to replace, to resume only, to ask."""

import asyncio

import pytest

from device.credentials import TokenCredentials
from device.exceptions import UploadFailed
from protocol.constants import Action, Disposition, UploadState
from protocol.errors import ErrorCode, ErrorScope
from protocol.events import ServerEvent
from tests.device.conftest import Uplinks
from tests.support.content import DATA
from tests.support.fake_server import FakeServer, Script, Session, breaks_stream, deque_of, error_frame
from tests.support.fake_time import FakeTime
from tests.support.token_issuer import Tokens

STREAM_CODES = [code for code in ErrorCode if code.scope is ErrorScope.STREAM]


@pytest.mark.parametrize("code", STREAM_CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("moment", ["opens", "chunks", "finishes"])
async def test_the_action_of_each_stream_error(
    code: ErrorCode, moment: str, server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    script = Script()
    getattr(script, moment).append(breaks_stream(code, 1234 if code.action is Action.WAIT else 0))
    server.scripts.append(script)
    async with uplinks() as uplink:
        other = asyncio.create_task(uplink.send(DATA[:1000], "other"))
        if code.action in {Action.GIVE_UP, Action.LEAVE, Action.OPEN_ANEW}:
            outcomes = await asyncio.gather(uplink.send(DATA, "log.bin"), other, return_exceptions=True)
            failed = [outcome for outcome in outcomes if isinstance(outcome, UploadFailed)]
            assert [(each.code, each.action, each.detail) for each in failed] == [
                (code, code.action, f"said {code.name}")
            ]
        else:
            await asyncio.gather(uplink.send(DATA, "log.bin"), other)
            assert {name: stored.data for name, stored in server.files.items()} == {
                "log.bin": DATA,
                "other": DATA[:1000],
            }
            assert time.slept == [1.634 if code.action is Action.WAIT else 0.4]
    assert len(server.sessions) == 1


async def test_waiting_without_a_time_backs_off(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    def wait(session: Session, event: ServerEvent) -> None:
        session.raw(error_frame(ErrorCode.DISK_FULL, Action.WAIT, 1))

    server.scripts.append(Script(opens=deque_of(wait)))
    async with uplinks() as uplink:
        await uplink.send(b"", "log.bin")
    assert time.slept == [0.4]


async def test_an_unknown_code_is_obeyed_by_its_action(server: FakeServer, uplinks: Uplinks) -> None:
    def unknown(session: Session, event: ServerEvent) -> None:
        session.raw(error_frame(0x02EE, Action.GIVE_UP, 1))

    server.scripts.append(Script(opens=deque_of(unknown)))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="error 0x02ee: the server gave no reason"):
            await uplink.send(b"", "log.bin")


async def test_a_stream_that_asks_for_a_new_credential_gets_a_new_connection(
    server: FakeServer, uplinks: Uplinks
) -> None:
    def unauthenticated(session: Session, event: ServerEvent) -> None:
        session.raw(error_frame(ErrorCode.UNAUTHENTICATED, Action.REAUTHENTICATE, 1))

    server.scripts.append(Script(opens=deque_of(unauthenticated)))
    tokens = Tokens()
    async with uplinks(TokenCredentials(tokens)) as uplink:
        await uplink.send(DATA, "log.bin")
    assert tokens.count == 2
    assert len(server.sessions) == 2
    assert server.files["log.bin"].data == DATA


async def test_other_content_is_replaced_where_the_caller_allows_it(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin", tag=b"1")
        with pytest.raises(UploadFailed, match="CONTENT_CHANGED"):
            await uplink.send(DATA[1:], "log.bin", tag=b"2")
        sent = await uplink.send(DATA[1:], "log.bin", tag=b"2", replace=True)
    assert server.files["log.bin"].data == DATA[1:]
    assert sent.resent_bytes == 0


async def test_content_is_replaced_only_once(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(finishes=deque_of(*[breaks_stream(ErrorCode.DIGEST_MISMATCH)] * 2)))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="DIGEST_MISMATCH"):
            await uplink.send(DATA, "log.bin", replace=True)
    assert not server.sessions[0].script.finishes


async def test_a_replacement_that_was_cut_is_resumed_not_replaced_again(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(cut_after_bytes=400_000))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin", disposition=Disposition.REPLACE)
    opens = server.files["log.bin"].opens
    assert [request.disposition for request in opens] == [Disposition.REPLACE, Disposition.RESUME_OR_CREATE]


async def test_resuming_only_does_not_create(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="NOT_FOUND"):
            await uplink.send(DATA, "log.bin", disposition=Disposition.RESUME_ONLY)
        await uplink.send(DATA, "log.bin")
        await uplink.send(DATA, "log.bin", disposition=Disposition.RESUME_ONLY)


async def test_a_query_survives_breaks_and_errors(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    server.scripts.append(Script(queries=deque_of(lambda session, _: session.cut())))
    server.scripts.append(Script(queries=deque_of(breaks_stream(ErrorCode.STORAGE_FAILED, 700))))
    async with uplinks() as uplink:
        status = await uplink.status("log.bin")
    assert status.state is UploadState.NONE
    assert time.slept == [0.4, 1.1]


async def test_a_query_for_a_bad_name_is_refused(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(queries=deque_of(breaks_stream(ErrorCode.NAME_INVALID))))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="NAME_INVALID"):
            await uplink.status("\n")
        server.sessions[0].script.queries.append(breaks_stream(ErrorCode.EXPIRED))
        with pytest.raises(UploadFailed, match="EXPIRED"):
            await uplink.status("old")
