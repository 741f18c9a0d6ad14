"""Who may use the control plane, and how refusals are told, as control/ports.py promises it."""

from dataclasses import replace

import pytest

from control.ports import (
    Permission,
    Ports,
    Principal,
    RequestRefused,
)
from daemon.catalog.records import Device
from daemon.identity.device_secrets import make_secret
from daemon.identity.gate import Gate
from daemon.identity.tokens import Identity, Kind, Scope
from protocol.handshake import device_key, read_secret
from tests.support.catalog_samples import DEVICE, TENANT
from tests.support.fake_machine import NOW_MS
from tests.support.refusals import OTHER, refusal
from tests.support.running_core import Running, failing

READ_AND_DELETE = frozenset({Permission.READ, Permission.DELETE})


class TestAuthenticator:
    def issue(self, running: Running, ttl_s: float = 60, **changes: object) -> str:
        identity = Identity(TENANT, DEVICE, Kind.DEVICE, frozenset({Scope.UPLOAD}), None)
        clock = running.core.machine.clock
        changed = replace(identity, **changes)  # type: ignore[arg-type]  # each value fits the field it names
        return running.core.issuer.issue(changed, ttl_s, clock.wall_ms())

    def test_a_devices_token_speaks_for_it(self, running: Running, ports: Ports) -> None:
        found = ports.authenticator.authenticate(self.issue(running))
        assert found == Principal(TENANT, DEVICE, False, READ_AND_DELETE)

    def test_an_operators_token_speaks_for_the_tenant(self, running: Running, ports: Ports) -> None:
        token = self.issue(running, tenant=OTHER, subject="boss", kind=Kind.OPERATOR, scopes=frozenset({Scope.READ}))
        found = ports.authenticator.authenticate(token)
        assert found == Principal(OTHER, "boss", True, frozenset({Permission.READ}))

    @pytest.mark.parametrize(
        ("kind", "scopes", "permissions"),
        [
            (Kind.DEVICE, {Scope.UPLOAD}, READ_AND_DELETE),
            (Kind.DEVICE, {Scope.READ}, {Permission.READ}),
            (Kind.DEVICE, {Scope.DELETE}, {Permission.DELETE}),
            (Kind.OPERATOR, {Scope.READ}, {Permission.READ}),
            (Kind.OPERATOR, {Scope.DELETE}, {Permission.DELETE}),
            (Kind.OPERATOR, {Scope.ADMIN}, {Permission.ADMIN}),
            (Kind.OPERATOR, {Scope.READ, Scope.ADMIN}, {Permission.READ, Permission.ADMIN}),
        ],
    )
    def test_what_scopes_permit(
        self, running: Running, ports: Ports, kind: Kind, scopes: set[Scope], permissions: set[Permission]
    ) -> None:
        found = ports.authenticator.authenticate(self.issue(running, kind=kind, scopes=frozenset(scopes)))
        assert found.is_operator == (kind is Kind.OPERATOR)
        assert found.permissions == permissions

    @pytest.mark.parametrize(
        ("kind", "scopes"),
        [(Kind.DEVICE, {Scope.ADMIN}), (Kind.OPERATOR, {Scope.UPLOAD}), (Kind.DEVICE, set()), (Kind.OPERATOR, set())],
    )
    def test_a_scope_outside_of_the_role_permits_nothing(
        self, running: Running, ports: Ports, kind: Kind, scopes: set[Scope]
    ) -> None:
        with pytest.raises(RequestRefused) as refused:
            ports.authenticator.authenticate(self.issue(running, kind=kind, scopes=frozenset(scopes)))
        assert refused.value.status == 401

    def test_a_token_that_is_none(self, ports: Ports) -> None:
        with pytest.raises(RequestRefused) as refused:
            ports.authenticator.authenticate("nonsense")
        assert (refused.value.status, refused.value.error.name) == (401, "UNAUTHENTICATED")
        assert "nonsense" not in str(refused.value)

    def test_a_token_that_has_expired(self, running: Running, ports: Ports) -> None:
        with pytest.raises(RequestRefused) as refused:
            ports.authenticator.authenticate(self.issue(running, ttl_s=-100))
        assert (refused.value.status, refused.value.error.name) == (401, "TOKEN_EXPIRED")

    async def test_a_disabled_devices_token(self, running: Running, ports: Ports) -> None:
        token = self.issue(running)
        await running.core.catalog.set_disabled(TENANT, DEVICE, True, NOW_MS)
        await running.core.gate.load()
        with pytest.raises(RequestRefused) as refused:
            ports.authenticator.authenticate(token)
        assert (refused.value.status, refused.value.error.name) == (401, "DEVICE_DISABLED")
        operator = self.issue(running, kind=Kind.OPERATOR, scopes=frozenset({Scope.READ}))
        assert ports.authenticator.authenticate(operator).subject == DEVICE


class TestTokenExchange:
    @pytest.fixture
    async def secret(self, running: Running) -> str:
        secret = make_secret(running.core.machine.entropy)
        await running.core.catalog.add_device(Device(TENANT, DEVICE, device_key(read_secret(secret)), NOW_MS))
        return secret

    async def test_a_right_secret_gets_a_token_to_upload(self, ports: Ports, secret: str) -> None:
        issued = await ports.token_exchange.exchange(TENANT, DEVICE, secret)
        assert issued.expires_in_s == 3600
        found = ports.authenticator.authenticate(issued.token)
        assert found == Principal(TENANT, DEVICE, False, READ_AND_DELETE)

    async def test_a_token_ends_with_the_secret_that_bought_it(
        self, running: Running, ports: Ports, secret: str
    ) -> None:
        issued = await ports.token_exchange.exchange(TENANT, DEVICE, secret)
        new = make_secret(running.core.machine.entropy)
        record = Device(TENANT, DEVICE, device_key(read_secret(new)), NOW_MS)
        await running.core.catalog.add_device(record, replace=True)
        # Bought before the gate has learned of it, the new token is good all the same.
        renewed = await ports.token_exchange.exchange(TENANT, DEVICE, new)
        await running.core.gate.load()
        with pytest.raises(RequestRefused) as refused:
            ports.authenticator.authenticate(issued.token)
        assert (refused.value.status, refused.value.error.name) == (401, "UNAUTHENTICATED")
        assert ports.authenticator.authenticate(renewed.token).subject == DEVICE

    @pytest.mark.parametrize("wrong", ["A" * 43, "not base64url!", "", "ü"])
    async def test_a_wrong_secret(self, ports: Ports, secret: str, wrong: str) -> None:
        assert await refusal(ports.token_exchange.exchange(TENANT, DEVICE, wrong)) == (401, "UNAUTHENTICATED")

    @pytest.mark.parametrize(("tenant", "device"), [(TENANT, "unknown"), (OTHER, DEVICE)])
    async def test_an_unknown_device(self, ports: Ports, secret: str, tenant: str, device: str) -> None:
        assert await refusal(ports.token_exchange.exchange(tenant, device, secret)) == (401, "UNAUTHENTICATED")

    async def test_the_key_of_an_unknown_device_is_no_ones_secret(self, ports: Ports, running: Running) -> None:
        await running.core.catalog.set_disabled(TENANT, "never-enrolled", True, NOW_MS)
        exchange = ports.token_exchange.exchange(TENANT, "never-enrolled", "A" * 43)
        assert await refusal(exchange) == (401, "UNAUTHENTICATED")

    async def test_a_disabled_device_is_told_so_once_it_has_proven_itself(
        self, running: Running, ports: Ports, secret: str
    ) -> None:
        await running.core.catalog.set_disabled(TENANT, DEVICE, True, NOW_MS)
        assert await refusal(ports.token_exchange.exchange(TENANT, DEVICE, secret)) == (403, "DEVICE_DISABLED")
        assert await refusal(ports.token_exchange.exchange(TENANT, DEVICE, "A" * 43)) == (401, "UNAUTHENTICATED")

    async def test_the_catalog_does_not_answer(self, running: Running, ports: Ports, secret: str) -> None:
        running.core.gate = Gate(running.core.verifier, failing(), running.core.machine.clock)
        assert await refusal(ports.token_exchange.exchange(TENANT, DEVICE, secret)) == (503, "UNAVAILABLE")
