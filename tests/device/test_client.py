"""The library against a server that obeys scripts: every action of every error, and every break of the link."""

import asyncio
import hashlib
import random
import ssl
from collections.abc import Callable

import pytest

from device.client import Uplink
from device.credentials import SecretCredentials, TokenCredentials
from device.exceptions import CredentialError, UnreachableError, UploadFailed
from protocol.constants import Action, Disposition, Feature, UploadState
from protocol.errors import ErrorCode, Scope
from protocol.events import ServerEvent
from protocol.handshake import device_key
from tests.device.certificates import Certificate
from tests.device.conftest import Uplinks
from tests.device.fake_server import FakeServer, Hook, Script, Session, deque_of, error_frame, without
from tests.device.fake_time import FakeTime
from tests.device.waiting import DEADLINE_S, until

DATA = random.Random(7).randbytes(700_000)
DIGEST = hashlib.sha256(DATA).digest()
CONNECTION_CODES = [code for code in ErrorCode if code.scope is Scope.CONNECTION]
STREAM_CODES = [code for code in ErrorCode if code.scope is Scope.STREAM]


def breaks_connection(code: ErrorCode, wait_ms: int = 0) -> Hook:
    return lambda session, _: session.connection.fail(code, f"said {code.name}", wait_ms)


def breaks_stream(code: ErrorCode, wait_ms: int = 0) -> Hook:
    def hook(session: Session, event: ServerEvent) -> None:
        session.connection.fail_stream(event.stream, code, f"said {code.name}", wait_ms)  # type: ignore[union-attr]  # scripts put it where events have a stream

    return hook


class Tokens:
    """A callback with a new token each time."""

    def __init__(self) -> None:
        self.count = 0
        self.troubles = 0

    async def __call__(self) -> str:
        if self.troubles:
            self.troubles -= 1
            raise CredentialError("the issuer is away")
        self.count += 1
        return f"token-{self.count}"


# The good case.


async def test_a_file_arrives_and_the_result_tells_of_it(server: FakeServer, uplinks: Uplinks) -> None:
    async with uplinks() as uplink:
        sent = await uplink.send(DATA, "log.bin")
        status = await uplink.status("log.bin")
    stored = server.files["log.bin"]
    assert stored.data == DATA
    assert (sent.upload_id, sent.name, sent.size, sent.crc32c) == (stored.id, "log.bin", len(DATA), stored.crc32c)
    assert (sent.resumes, sent.sent_bytes, sent.resent_bytes) == (0, len(DATA), 0)
    assert (status.state, status.next_expected_byte) == (UploadState.COMPLETE, len(DATA))
    hello = server.sessions[0].hello
    assert hello is not None
    assert (hello.hello.agent, hello.hello.agent_version, hello.hello.last_end) == ("uplink", "1.2", 0)


async def test_many_uploads_share_one_connection(server: FakeServer, uplinks: Uplinks) -> None:
    contents = {f"file-{n}": random.Random(n).randbytes(n * 20_011) for n in range(40)}
    async with uplinks(chunk_bytes=10_000) as uplink:
        await asyncio.gather(*(uplink.send(data, name) for name, data in contents.items()))
    assert {name: stored.data for name, stored in server.files.items()} == contents
    assert len(server.sessions) == 1


async def test_a_secret_is_proven(server: FakeServer, uplinks: Uplinks) -> None:
    secret = b"s" * 32
    server.device_key = device_key(secret)
    server.scripts.append(Script(challenge=b"c" * 32))
    async with uplinks(SecretCredentials("cam-1", secret)) as uplink:
        await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].state is UploadState.COMPLETE


async def test_a_wrong_secret_is_final(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(challenge=b"c" * 32))
    async with uplinks(SecretCredentials("cam-1", b"x" * 32)) as uplink:
        with pytest.raises(UploadFailed, match="UNAUTHENTICATED: the proof is wrong"):
            await uplink.send(DATA, "log.bin")
    assert len(server.sessions) == 1


async def test_a_token_cannot_answer_a_challenge(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(challenge=b"c" * 32))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="credential is a token") as caught:
            await uplink.send(DATA, "log.bin")
    assert caught.value.code == ErrorCode.CREDENTIAL_UNSUPPORTED


async def test_a_server_without_a_required_feature_is_refused(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(welcome=without(Feature.CHUNK_CRC32C)))
    async with uplinks(features_required=Feature.CHUNK_CRC32C) as uplink:
        with pytest.raises(UploadFailed, match="does not offer"):
            await uplink.send(DATA, "log.bin")
    assert not server.files


async def test_nothing_waits_for_a_sign_of_life_inside_tls(certificate: Certificate, time: FakeTime) -> None:
    """Time stands still here, so that no ping could push on what was held up."""
    trusting = ssl.create_default_context(cafile=certificate.path)
    async with (
        FakeServer(certificate.server_context()) as server,
        Uplink(
            "127.0.0.1", server.port, TokenCredentials("t"), tls=trusting, clock=time.clock, sleep=time.sleep
        ) as uplink,
    ):
        async with asyncio.timeout(DEADLINE_S):
            await uplink.send(DATA, "log.bin")
    assert server.files["log.bin"].data == DATA


# Breaks.


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


async def test_a_later_process_goes_on_where_the_earlier_was_cut(server: FakeServer, uplinks: Uplinks) -> None:
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
        session.connection.data_to_send()
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


async def test_a_link_that_was_good_is_made_again_at_once_but_once(
    server: FakeServer, uplinks: Uplinks, time: FakeTime
) -> None:
    server.scripts.extend(Script(cut_after_bytes=count) for count in (300_000, 1, 1))
    async with uplinks() as uplink:
        await uplink.send(DATA, "log.bin")
    assert time.slept == pytest.approx([0.04, 0.4, 0.8])


@pytest.mark.parametrize("with_secret", [False, True])
async def test_opening_waits_for_no_welcome(with_secret: bool, server: FakeServer, uplinks: Uplinks) -> None:
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


async def test_opening_waits_for_the_features_that_are_required(server: FakeServer, uplinks: Uplinks) -> None:
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


async def test_nobody_there_is_reported_after_the_attempts_allowed(server: FakeServer, time: FakeTime) -> None:
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
        outcomes = await asyncio.gather(*(uplink.send(DATA, f"{n}") for n in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, UnreachableError) for outcome in outcomes)
    assert len(server.sessions) == 3


async def test_a_deadline_without_progress(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.extend(Script(cut_after_bytes=1) for _ in range(20))
    async with uplinks(deadline_s=100) as uplink:
        with pytest.raises(UnreachableError, match="nothing went on for 100 s"):
            await uplink.send(DATA, "log.bin")


async def test_a_connection_that_never_comes_about_times_out(time: FakeTime) -> None:
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


# Errors of the connection.


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
    assert time.slept == [5.0 if code.action is Action.WAIT else 0.4]
    assert tokens.count == (2 if code.action is Action.REAUTHENTICATE else 1)
    again = server.sessions[1].hello
    assert again is not None
    assert again.hello.last_end == code
    assert again.hello.token == f"token-{tokens.count}"


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
        with pytest.raises(UnreachableError, match="no credential can be had: the issuer is away"):
            await uplink.send(DATA, "log.bin")


async def test_a_bug_of_the_callback_reaches_the_caller(server: FakeServer, uplinks: Uplinks) -> None:
    async def broken() -> str:
        raise ZeroDivisionError

    async with uplinks(TokenCredentials(broken)) as uplink:
        with pytest.raises(ZeroDivisionError):
            await uplink.send(DATA, "log.bin")


# Errors of a stream.


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
            assert time.slept == [1.234 if code.action is Action.WAIT else 0.4]
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
        sent = await uplink.send(DATA[1:], "log.bin", tag=b"2", replace_changed=True)
    assert server.files["log.bin"].data == DATA[1:]
    assert sent.resent_bytes == 0


async def test_content_is_replaced_but_once(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(finishes=deque_of(*[breaks_stream(ErrorCode.DIGEST_MISMATCH)] * 2)))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="DIGEST_MISMATCH"):
            await uplink.send(DATA, "log.bin", replace_changed=True)
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


# Queries.


async def test_a_query_survives_breaks_and_errors(server: FakeServer, uplinks: Uplinks, time: FakeTime) -> None:
    server.scripts.append(Script(queries=deque_of(lambda session, _: session.cut())))
    server.scripts.append(Script(queries=deque_of(breaks_stream(ErrorCode.STORAGE_FAILED, 700))))
    async with uplinks() as uplink:
        status = await uplink.status("log.bin")
    assert status.state is UploadState.NONE
    assert time.slept == [0.4, 0.7]


async def test_a_query_for_a_bad_name_is_refused(server: FakeServer, uplinks: Uplinks) -> None:
    server.scripts.append(Script(queries=deque_of(breaks_stream(ErrorCode.NAME_INVALID))))
    async with uplinks() as uplink:
        with pytest.raises(UploadFailed, match="NAME_INVALID"):
            await uplink.status("\n")
        server.sessions[0].script.queries.append(breaks_stream(ErrorCode.EXPIRED))
        with pytest.raises(UploadFailed, match="EXPIRED"):
            await uplink.status("old")


# Life.


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
