"""Which devices are let in, and which answer the others get."""

import base64

import pytest

from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import Device
from daemon.identity.gate import Admitted, Denied, Gate
from daemon.identity.tokens import Scope, TokenVerifier
from daemon.policies import auth_policy
from protocol.constants import AUTHORITY_UNLIMITED_S
from protocol.errors import ErrorCode
from protocol.handshake import device_key, prove
from tests.support.command_parts import KEY
from tests.support.device_site import DEVICE, SECRET, TENANT, FakeDevices, Site, device
from tests.support.fake_machine import NOW_MS
from tests.support.made_tokens import RSA, public

HELLO, CHALLENGE = b"hello", b"challenge"
PROOF = prove(device_key(SECRET), HELLO, CHALLENGE)


async def prove_to(devices: FakeDevices, proof: bytes = PROOF, tenant: str = TENANT) -> Admitted | Denied:
    gate = Site(devices=devices).gate()
    await gate.load()
    return await gate.admit_proof(tenant, DEVICE, hello=HELLO, challenge=CHALLENGE, proof=proof)


class TestToken:
    async def test_a_good_one_lets_its_device_in_until_it_expires(self) -> None:
        site = Site()
        admitted = site.gate().admit_token(site.token(ttl_s=60))
        assert admitted == Admitted(TENANT, DEVICE, NOW_MS + 60_000)
        assert site.gate().revoked(admitted) is None

    async def test_one_that_has_expired_says_so(self) -> None:
        site = Site()
        token = site.token(ttl_s=60)
        site.bench.clock.pass_s(60 + site.settings.auth.leeway_s)
        denied = site.gate().admit_token(token)
        assert isinstance(denied, Denied)
        assert denied.code is ErrorCode.TOKEN_EXPIRED

    async def test_a_refused_token_is_no_credential(self) -> None:
        denied = Site().gate().admit_token("a.b.c")
        assert isinstance(denied, Denied)
        assert denied.code is ErrorCode.UNAUTHENTICATED
        assert denied.detail.startswith("token refused: ")

    async def test_one_without_the_right_to_upload_is_forbidden(self) -> None:
        site = Site()
        denied = site.gate().admit_token(site.token(scope=Scope.READ))
        assert isinstance(denied, Denied)
        assert denied.code is ErrorCode.FORBIDDEN

    async def test_a_disabled_device_is_known_once_loaded(self) -> None:
        site = Site()
        gate = site.gate()
        site.devices.off = {(TENANT, DEVICE)}
        assert isinstance(gate.admit_token(site.token()), Admitted)
        await gate.load()
        assert gate.is_disabled(TENANT, DEVICE)
        denied = gate.admit_token(site.token())
        assert isinstance(denied, Denied)
        assert denied.code is ErrorCode.DEVICE_DISABLED
        assert isinstance(gate.admit_token(site.token("pump-8")), Admitted)


class TestProof:
    async def test_a_right_one_lets_the_device_in_without_end(self) -> None:
        assert await prove_to(FakeDevices(device())) == Admitted(TENANT, DEVICE, None, secret_generation=1)

    async def test_an_unknown_device_and_a_wrong_proof_get_the_same_answer(self) -> None:
        keyless = Device(tenant=TENANT, device=DEVICE, key=None, created_ms=0, disabled_ms=1)
        answers = {
            await prove_to(FakeDevices()),
            await prove_to(FakeDevices(keyless)),
            # The key in whose place an unknown device is compared must let nobody in.
            await prove_to(FakeDevices(), prove(bytes(32), HELLO, CHALLENGE)),
            await prove_to(FakeDevices(keyless), prove(bytes(32), HELLO, CHALLENGE)),
            await prove_to(FakeDevices(device()), bytes(32)),
            await prove_to(FakeDevices(device()), tenant="other"),
        }
        (denied,) = answers
        assert isinstance(denied, Denied)
        assert denied.code is ErrorCode.UNAUTHENTICATED

    async def test_a_disabled_device_must_prove_itself_to_learn_that_it_is_disabled(self) -> None:
        for devices in (FakeDevices(device(disabled_ms=1)), FakeDevices(device())):
            devices.off = {(TENANT, DEVICE)}
            right, wrong = await prove_to(devices), await prove_to(devices, bytes(32))
            assert isinstance(right, Denied)
            assert isinstance(wrong, Denied)
            assert (right.code, wrong.code) == (ErrorCode.DEVICE_DISABLED, ErrorCode.UNAUTHENTICATED)

    async def test_a_secret_that_was_replaced_meanwhile_is_void(self) -> None:
        devices = FakeDevices(device())
        devices.generations = {(TENANT, DEVICE): 2}
        denied = await prove_to(devices)
        assert isinstance(denied, Denied)
        assert denied.code is ErrorCode.UNAUTHENTICATED

    async def test_a_catalog_that_fails_is_the_callers_to_answer(self) -> None:
        devices = FakeDevices(device())
        devices.failure = CatalogFailed("the disk hangs")
        gate = Site(devices=devices).gate()
        with pytest.raises(CatalogFailed):
            await gate.admit_proof(TENANT, DEVICE, hello=HELLO, challenge=CHALLENGE, proof=PROOF)
        with pytest.raises(CatalogFailed):
            await gate.load()


@pytest.mark.parametrize(
    ("expires_ms", "left_s"),
    [
        (None, AUTHORITY_UNLIMITED_S),
        (NOW_MS + 1999, 1),
        (NOW_MS - 1, 0),
        (NOW_MS + AUTHORITY_UNLIMITED_S * 1000, AUTHORITY_UNLIMITED_S - 1),
    ],
)
def test_authority_is_sent_in_whole_seconds_below_unlimited(expires_ms: int | None, left_s: int) -> None:
    assert Admitted(TENANT, DEVICE, expires_ms).authority_s(NOW_MS) == left_s


class TestSecret:
    TEXT = base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()

    @pytest.mark.parametrize(("text", "is_right"), [(TEXT, True), ("A" * 43, False), ("not base64!", False)])
    async def test_only_the_right_one_lets_the_device_in(self, text: str, is_right: bool) -> None:
        verdict = await Site().gate().admit_secret(TENANT, DEVICE, text)
        assert isinstance(verdict, Admitted) is is_right

    async def test_an_unknown_device_gets_the_answer_of_a_wrong_secret(self) -> None:
        gate = Site(devices=FakeDevices()).gate()
        wrong = await Site().gate().admit_secret(TENANT, DEVICE, "A" * 43)
        assert await gate.admit_secret(TENANT, DEVICE, self.TEXT) == wrong
        assert await gate.admit_secret(TENANT, DEVICE, "A" * 43) == wrong

    async def test_a_disabled_device_must_prove_itself_to_learn_it(self) -> None:
        gate = Site(devices=FakeDevices(device(disabled_ms=1))).gate()
        right, wrong = [await gate.admit_secret(TENANT, DEVICE, each) for each in (self.TEXT, "A" * 43)]
        assert isinstance(right, Denied)
        assert isinstance(wrong, Denied)
        assert (right.code, wrong.code) == (ErrorCode.DEVICE_DISABLED, ErrorCode.UNAUTHENTICATED)


class TestRevocation:
    async def test_a_new_secret_ends_what_the_old_one_opened(self) -> None:
        site = Site()
        gate = site.gate()
        bought = site.token(secret_generation=1)
        by_token, by_issuer = gate.admit_token(bought), gate.admit_token(site.token())
        by_secret = await gate.admit_secret(TENANT, DEVICE, TestSecret.TEXT)
        site.devices.generations = {(TENANT, DEVICE): 2}
        await gate.load()
        for admitted, stays in [(by_token, False), (by_secret, False), (by_issuer, True)]:
            assert isinstance(admitted, Admitted)
            assert (gate.revoked(admitted) is None) is stays
        assert isinstance(gate.admit_token(bought), Denied)
        assert isinstance(gate.admit_token(site.token()), Admitted)
        assert isinstance(gate.admit_token(site.token(secret_generation=2)), Admitted)

    async def test_another_devices_secret_changes_nothing(self) -> None:
        site = Site()
        gate = site.gate()
        site.devices.generations = {(TENANT, "pump-8"): 2, ("other", DEVICE): 2}
        await gate.load()
        assert isinstance(gate.admit_token(site.token(secret_generation=1)), Admitted)

    async def test_a_key_that_is_removed_takes_its_devices_with_it(self) -> None:
        site = Site()
        policy = auth_policy(site.settings)
        verifier = TokenVerifier(policy, [KEY, public(RSA)])
        gate = Gate(verifier, site.devices, site.bench.clock)
        admitted = gate.admit_token(site.token())
        by_secret = await gate.admit_secret(TENANT, DEVICE, TestSecret.TEXT)
        assert isinstance(admitted, Admitted)
        assert isinstance(by_secret, Admitted)
        verifier.reload(policy, [public(RSA), KEY])
        assert gate.revoked(admitted) is None
        verifier.reload(policy, [public(RSA)])
        denied = gate.revoked(admitted)
        assert denied is not None
        assert denied.code is ErrorCode.UNAUTHENTICATED
        assert gate.revoked(by_secret) is None
