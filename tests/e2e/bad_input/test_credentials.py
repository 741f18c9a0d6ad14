"""Invalid tokens and proofs, and attempts to reach another device's files."""

import jwt
import pytest
import pytest_asyncio

from protocol import codec, frames
from protocol.constants import Action, CredentialKind, Disposition, TlvType, UploadState
from protocol.errors import ErrorCode
from protocol.handshake import read_secret
from tests.e2e.bad_input.conftest import Nothing
from tests.support.raw_device import NONCE, Wire, changed, open_request, secret_hello, token_hello
from tests.support.refused_input import begun, failed, refused
from tests.support.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secret(live: Scene) -> bytes:
    """The secret of the device `prover`."""
    return read_secret(await live.daemon.command("device", "add", "prover", "--quiet"))


class TestTokens:
    @pytest.mark.parametrize(
        ("claims", "code"),
        [
            ({"exp": 1_000_000_000}, ErrorCode.TOKEN_EXPIRED),
            ({"aud": "another"}, ErrorCode.UNAUTHENTICATED),
            ({"iss": "another"}, ErrorCode.UNAUTHENTICATED),
            ({"exp": None}, ErrorCode.UNAUTHENTICATED),
            ({"aud": None}, ErrorCode.UNAUTHENTICATED),
            ({"sub": "../etc"}, ErrorCode.UNAUTHENTICATED),
            ({"nbf": 4_000_000_000}, ErrorCode.UNAUTHENTICATED),
        ],
        ids=["expired", "audience", "issuer", "endless", "no audience", "subject", "not yet"],
    )
    async def test_an_invalid_token_is_refused_on_both_ports(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, claims: dict[str, object], code: ErrorCode
    ) -> None:
        token = live.token("victim", **claims)
        async with nothing_stored:
            stranger.say(token_hello(token))
            await refused(stranger, code)
            answer = await live.http.get("/v1/files", token=token)
            assert (answer.status, answer.name) == (401, code.name)

    @pytest.mark.parametrize("how", ["key", "none", "altered", "garbage"])
    async def test_a_forged_token_is_refused_on_both_ports(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, how: str
    ) -> None:
        good = live.token("victim")
        claims = jwt.decode(good, options={"verify_signature": False})
        forged = {
            "key": jwt.encode(claims, "k" * 32, "HS256"),
            "none": jwt.encode(claims, "", "none"),
            "altered": ".".join([*jwt.encode(claims | {"sub": "boss"}, "k" * 32).split(".")[:2], good.split(".")[2]]),
            "garbage": "not.a.token",
        }[how]
        async with nothing_stored:
            stranger.say(token_hello(forged))
            await refused(stranger, ErrorCode.UNAUTHENTICATED)
            answer = await live.http.get("/v1/files", token=forged)
            assert (answer.status, answer.name) == (401, "UNAUTHENTICATED")

    @pytest.mark.parametrize("scope", ["read", "delete"])
    async def test_a_token_without_the_upload_scope_is_refused(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, scope: str
    ) -> None:
        async with nothing_stored:
            stranger.say(token_hello(live.token("victim", scope=scope)))
            await refused(stranger, ErrorCode.FORBIDDEN)

    async def test_an_operators_token_cannot_upload(self, live: Scene, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.say(token_hello(live.operator))
            await refused(stranger, ErrorCode.FORBIDDEN)

    async def test_a_disabled_device_is_cut_and_refused_on_both_ports(
        self, live: Scene, stranger: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        token = live.token("revoked")
        async with await live.admitted("revoked") as wire:
            await begun(wire, name)
            async with nothing_stored:
                await live.daemon.command("device", "disable", "revoked")
                await failed(wire, ErrorCode.DEVICE_DISABLED)
                stranger.say(token_hello(token))
                await refused(stranger, ErrorCode.DEVICE_DISABLED)
                answer = await live.http.get("/v1/files", token=token)
                assert (answer.status, answer.name) == (401, "DEVICE_DISABLED")

    async def test_a_refresh_for_another_device_ends_the_connection(
        self, live: Scene, wire: Wire, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            wire.say(frames.Refresh(live.token("another")))
            await failed(wire, ErrorCode.UNAUTHENTICATED)


class TestProofs:
    async def test_a_correct_proof_is_admitted(self, stranger: Wire, secret: bytes) -> None:
        assert isinstance((await stranger.prove("prover", secret)).frame, frames.Welcome)

    @pytest.mark.parametrize("device", ["prover", "unknown"])
    async def test_a_wrong_proof_and_an_unknown_device_get_the_same_answer(
        self, stranger: Wire, secret: bytes, nothing_stored: Nothing, device: str
    ) -> None:
        async with nothing_stored:
            reply = await stranger.prove(device, bytes(32))
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.UNAUTHENTICATED
            assert reply.frame.action is Action.REAUTHENTICATE
            assert reply.frame.text == (
                "the secret does not fit: check the device's name, tenant and secret, or enrol it"
            )
            await stranger.ended()

    async def test_a_replayed_proof_is_refused(
        self, live: Scene, stranger: Wire, secret: bytes, nothing_stored: Nothing
    ) -> None:
        async with await Wire.connect(live.address) as first:
            assert isinstance((await first.prove("prover", secret)).frame, frames.Welcome)
            proof = first.said[-1]
        async with nothing_stored:
            stranger.say(secret_hello("prover"))
            await stranger.hear(frames.Challenge)
            stranger.send(proof)
            await refused(stranger, ErrorCode.UNAUTHENTICATED)

    async def test_a_hello_altered_in_transit_is_refused(
        self, live: Scene, stranger: Wire, secret: bytes, nothing_stored: Nothing
    ) -> None:
        async with nothing_stored:
            reply = await stranger.prove("prover", secret, changed(secret_hello("prover"), features=0))
            assert isinstance(reply.frame, frames.Refused)
            assert reply.frame.code == ErrorCode.UNAUTHENTICATED

    async def test_a_hello_without_its_credential_is_refused(self, stranger: Wire, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            stranger.say(frames.Hello(CredentialKind.DEVICE_SECRET, 0, 64, nonce=NONCE))
            await refused(stranger, ErrorCode.FRAME_MALFORMED)

    async def test_a_wrong_secret_gets_no_token(self, live: Scene, secret: bytes, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            for device in ("prover", "unknown"):
                answer = await live.http.post("/v1/token", {"device": device, "secret": "A" * 43})
                assert (answer.status, answer.name) == (401, "UNAUTHENTICATED")

    @pytest.mark.parametrize("field", [TlvType.DEVICE, TlvType.TENANT])
    async def test_a_name_that_is_not_utf_8_is_refused_like_a_wrong_secret(
        self, stranger: Wire, nothing_stored: Nothing, field: TlvType
    ) -> None:
        hello = codec.encode(secret_hello("prover", tenant="plant"))
        name = {TlvType.DEVICE: b"prover", TlvType.TENANT: b"plant"}[field]
        async with nothing_stored:
            stranger.send(hello.replace(name, b"\xff" * len(name)))
            await stranger.hear(frames.Challenge)
            stranger.say(frames.Proof(bytes(32)))
            await refused(stranger, ErrorCode.UNAUTHENTICATED)

    async def test_a_device_name_that_is_not_utf_8_gets_no_token(self, live: Scene, nothing_stored: Nothing) -> None:
        async with nothing_stored:
            answer = await live.http.post("/v1/token", {"device": "\ud800", "secret": "A" * 43})
            assert (answer.status, answer.name) == (401, "UNAUTHENTICATED")


class TestForeignFiles:
    async def test_a_device_cannot_reach_another_devices_file(
        self, live: Scene, wire: Wire, nothing_stored: Nothing, name: str
    ) -> None:
        async with await live.admitted("owner") as owner:
            await begun(owner, name)
        (file_id,) = [key for key, value in (await live.stored()).items() if value[1] == name]
        thief = live.token("victim", scope="upload read delete")
        async with nothing_stored:
            wire.say(frames.Query(name), 5)
            status = await wire.hear(frames.Status, 5)
            assert (status.state, status.upload_id) == (UploadState.NONE, 0)
            wire.say(frames.Open(Disposition.RESUME_ONLY, 100, name), 6)
            await failed(wire, ErrorCode.NOT_FOUND, 6)
            for method, path in [
                ("GET", f"/v1/files/{file_id}"),
                ("GET", f"/v1/files/{file_id}/content"),
                ("DELETE", f"/v1/files/{file_id}"),
            ]:
                answer = await live.http.request(method, path, token=thief)
                assert (answer.status, answer.name) == (404, "RESOURCE_UNKNOWN")
            listed = (await live.http.get("/v1/files?limit=1000", token=thief)).json()["files"]
            assert isinstance(listed, list)
            assert {file["device"] for file in listed} <= {"victim"}

    async def test_the_same_name_on_two_devices_is_two_files(self, live: Scene, wire: Wire, name: str) -> None:
        async with await live.admitted("owner") as owner:
            first = await owner.open(1, open_request(name, 100))
            second = await wire.open(1, open_request(name, 200))
        assert first.upload_id != second.upload_id
