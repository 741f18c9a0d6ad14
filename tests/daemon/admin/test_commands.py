"""The operator's commands, on a real catalog."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from daemon.adapters.entropy import SystemEntropy
from daemon.admin.commands import Commands
from daemon.admin.results import CommandFailed, DaemonStatus, DeviceAdded, DeviceListed, DeviceSwitched
from daemon.health import Problem
from daemon.identity.device_secrets import verify_secret
from daemon.identity.tokens import SCOPES, Identity, Kind, Reason, Scope, TokenRefused
from daemon.sections import YEAR_S
from daemon.upkeep.cleanup import CleanupBusy
from daemon.upkeep.verify import Checked, VerifyProgress
from protocol.errors import ErrorCode
from protocol.handshake import device_key, read_secret
from tests.support.catalog_samples import TENANT
from tests.support.command_parts import REPORT, VERSION, FakeGate, Parts, parts_in
from tests.support.fake_machine import NOW_MS

Attempt = Callable[[], Awaitable[object]]

BAD_DEVICES = ["", " ", "-pump", "pump/7", "pümp", "p" * 129, "pump\n", "../x"]
BAD_TENANTS = ["", "_acme", "acme:1", "a" * 65, "acme\n"]


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts_in(tmp_path) as made:
        yield made


@pytest.fixture
def commands(parts: Parts) -> Commands:
    return parts.commands()


class TestAddDevice:
    async def test_the_catalog_keeps_the_key_of_the_secret_shown(self, parts: Parts, commands: Commands) -> None:
        added = await commands.add_device("acme", "pump-7")
        kept = await parts.catalog.device("acme", "pump-7")
        assert kept is not None
        assert kept.key == device_key(read_secret(added.secret))
        assert verify_secret(kept.key, added.secret)
        assert (kept.created_ms, kept.disabled_ms) == (NOW_MS, None)

    async def test_no_repr_shows_the_secret(self, commands: Commands) -> None:
        added = await commands.add_device(None, "pump-7")
        assert added.secret not in repr(added)

    async def test_every_secret_is_different(self, commands: Commands) -> None:
        one = await commands.add_device(None, "pump-7")
        other = await commands.add_device(None, "pump-8")
        assert one.secret != other.secret

    async def test_the_tenant_defaults_to_the_default_tenant(self, commands: Commands) -> None:
        assert (await commands.add_device(None, "pump-7")).tenant == TENANT

    async def test_enrolling_twice_is_refused_and_changes_nothing(self, parts: Parts, commands: Commands) -> None:
        added = await commands.add_device(None, "pump-7")
        with pytest.raises(CommandFailed, match="already enrolled") as refused:
            await commands.add_device(None, "pump-7")
        assert refused.value.code is ErrorCode.CONFLICT
        kept = await parts.catalog.device(TENANT, "pump-7")
        assert kept is not None and kept.key is not None
        assert verify_secret(kept.key, added.secret)

    async def test_a_new_secret_replaces_the_old_one(self, parts: Parts, commands: Commands) -> None:
        old = await commands.add_device(None, "pump-7")
        new = await commands.add_device(None, "pump-7", replace=True)
        kept = await parts.catalog.device(TENANT, "pump-7")
        assert kept is not None and kept.key is not None
        assert verify_secret(kept.key, new.secret)
        assert not verify_secret(kept.key, old.secret)

    async def test_what_the_old_secret_opened_is_cut_with_it(self, parts: Parts, commands: Commands) -> None:
        await commands.add_device(None, "pump-7")
        assert (parts.gate.loads, parts.cut) == (0, [])
        await commands.add_device(None, "pump-7", replace=True)
        assert (parts.gate.loads, parts.cut) == (1, [(TENANT, "pump-7")])

    async def test_a_disabled_device_stays_disabled(self, commands: Commands) -> None:
        await commands.disable(None, "pump-7")
        added = await commands.add_device(None, "pump-7")
        assert added == DeviceAdded(TENANT, "pump-7", added.secret, is_disabled=True)


class TestNames:
    @pytest.mark.parametrize("device", BAD_DEVICES)
    async def test_invalid_device_names_are_refused(self, commands: Commands, device: str) -> None:
        attempts: list[Attempt] = [
            lambda: commands.add_device(None, device),
            lambda: commands.disable(None, device),
            lambda: commands.enable(None, device),
            lambda: commands.token(device, Kind.DEVICE, (), None, None),
        ]
        for attempt in attempts:
            with pytest.raises(CommandFailed, match="not a valid device name") as refused:
                await attempt()
            assert refused.value.code is ErrorCode.REQUEST_INVALID
        with pytest.raises(CommandFailed, match="not a valid device name"):
            commands.verify(None, device)

    @pytest.mark.parametrize("tenant", BAD_TENANTS)
    async def test_invalid_tenant_names_are_refused(self, commands: Commands, tenant: str) -> None:
        attempts: list[Attempt] = [
            lambda: commands.add_device(tenant, "pump-7"),
            lambda: commands.list_devices(tenant),
            lambda: commands.disable(tenant, "pump-7"),
            lambda: commands.token("pump-7", Kind.DEVICE, (), None, tenant),
        ]
        for attempt in attempts:
            with pytest.raises(CommandFailed, match="not a valid tenant name"):
                await attempt()
        with pytest.raises(CommandFailed, match="not a valid tenant name"):
            commands.verify(tenant, None)

    @pytest.mark.parametrize("device", ["p", "0", "A.b_c:d-9", "p" * 128])
    async def test_every_valid_name_can_hold_a_token(self, parts: Parts, commands: Commands, device: str) -> None:
        await commands.add_device("T" * 64, device)
        issued = await commands.token(device, Kind.DEVICE, (), None, "T" * 64)
        assert parts.token_verifier.verify(issued.token, NOW_MS).subject == device


class TestListDevices:
    async def test_devices_are_sorted_by_tenant_and_name(self, parts: Parts, commands: Commands) -> None:
        await commands.add_device("b", "pump-1")
        await commands.add_device("a", "pump-2")
        await commands.disable("a", "pump-1")
        everybody = await commands.list_devices(None)
        assert everybody == (
            DeviceListed("a", "pump-1", is_enrolled=False, created_ms=NOW_MS, disabled_ms=NOW_MS),
            DeviceListed("a", "pump-2", is_enrolled=True, created_ms=NOW_MS, disabled_ms=None),
            DeviceListed("b", "pump-1", is_enrolled=True, created_ms=NOW_MS, disabled_ms=None),
        )
        assert await commands.list_devices("a") == everybody[:2]


class TestSwitch:
    async def test_the_gate_learns_of_a_disabled_device_before_its_connections_are_cut(self, parts: Parts) -> None:
        order: list[str] = []

        class Gate(FakeGate):
            async def load(self) -> None:
                device = await parts.catalog.device(TENANT, "pump-7")
                order.append("catalog" if device is not None and device.disabled_ms is not None else "gate alone")

        class Watched(list[tuple[str, str]]):
            def append(self, item: tuple[str, str], /) -> None:
                order.append(f"cut {item}")

        parts.gate, parts.cut = Gate(), Watched()
        switched = await parts.commands().disable(None, "pump-7")
        assert switched == DeviceSwitched(TENANT, "pump-7", is_disabled=True, changed=True)
        assert order == ["catalog", f"cut {(TENANT, 'pump-7')}"]

    async def test_disabling_again_completes_a_failed_attempt(self, parts: Parts, commands: Commands) -> None:
        await commands.disable(None, "pump-7")
        assert not (await commands.disable(None, "pump-7")).changed
        assert parts.gate.loads == 2
        assert parts.cut == [(TENANT, "pump-7")] * 2

    async def test_an_enabled_device_is_admitted_again(self, parts: Parts, commands: Commands) -> None:
        await commands.disable(None, "pump-7")
        assert await commands.enable(None, "pump-7") == DeviceSwitched(
            TENANT, "pump-7", is_disabled=False, changed=True
        )
        assert not (await commands.enable(None, "pump-7")).changed
        assert await parts.catalog.disabled() == frozenset()
        assert parts.gate.loads == 3
        assert len(parts.cut) == 1

    async def test_without_a_daemon_there_is_nothing_to_cut(self, parts: Parts) -> None:
        assert (await parts.commands(is_running=False).disable(None, "pump-7")).changed
        assert parts.cut == []


class TestToken:
    @pytest.mark.parametrize("kind", list(Kind))
    async def test_a_token_with_any_allowed_scope_is_accepted(
        self, parts: Parts, commands: Commands, kind: Kind
    ) -> None:
        issued = await commands.token("pump-7", kind, SCOPES[kind], 90, "acme")
        identity = parts.token_verifier.verify(issued.token, NOW_MS)
        assert identity == Identity("acme", "pump-7", kind, SCOPES[kind], NOW_MS // 1000 + 90)
        assert issued.scopes == tuple(sorted(SCOPES[kind]))
        assert issued.token not in repr(issued)

    @pytest.mark.parametrize("kind", list(Kind))
    async def test_every_other_scope_is_refused(self, commands: Commands, kind: Kind) -> None:
        for scope in frozenset(Scope) - SCOPES[kind]:
            with pytest.raises(CommandFailed, match=f"for {kind} cannot give {scope}"):
                await commands.token("pump-7", kind, {scope}, None, None)

    @pytest.mark.parametrize(("kind", "scope"), [(Kind.DEVICE, Scope.UPLOAD), (Kind.OPERATOR, Scope.READ)])
    async def test_without_scopes_a_token_has_the_default_ones(
        self, parts: Parts, commands: Commands, kind: Kind, scope: Scope
    ) -> None:
        issued = await commands.token("pump-7", kind, (), None, None)
        assert parts.token_verifier.verify(issued.token, NOW_MS).scopes == {scope}

    async def test_the_lifetime_defaults_to_the_settings(self, parts: Parts, commands: Commands) -> None:
        issued = await commands.token("pump-7", Kind.DEVICE, (), None, None)
        assert issued.expires_in_s == parts.settings.auth.token_ttl_s
        later_ms = NOW_MS + int((issued.expires_in_s + parts.settings.auth.leeway_s) * 1000)
        with pytest.raises(TokenRefused) as refused:
            parts.token_verifier.verify(issued.token, later_ms)
        assert refused.value.reason is Reason.EXPIRED

    @pytest.mark.parametrize("ttl_s", [0.0, -1.0, YEAR_S + 1.0, float("nan"), float("inf")])
    async def test_a_lifetime_out_of_bounds_is_refused(self, commands: Commands, ttl_s: float) -> None:
        with pytest.raises(CommandFailed, match="choose 1 to"):
            await commands.token("pump-7", Kind.DEVICE, (), ttl_s, None)

    async def test_a_disabled_device_gets_no_token(self, commands: Commands) -> None:
        await commands.add_device(None, "pump-7")
        assert await commands.token("pump-7", Kind.DEVICE, (), None, None)
        await commands.disable(None, "pump-7")
        with pytest.raises(CommandFailed, match="enable it first") as refused:
            await commands.token("pump-7", Kind.DEVICE, (), None, None)
        assert refused.value.code is ErrorCode.DEVICE_DISABLED

    @pytest.mark.parametrize("subject", ["", "a\nb", "x" * 256, "\ud800"])
    async def test_an_operator_name_that_no_verifier_accepts_is_refused(self, commands: Commands, subject: str) -> None:
        with pytest.raises(CommandFailed, match="operator's name"):
            await commands.token(subject, Kind.OPERATOR, (), None, None)

    @pytest.mark.parametrize("subject", ["Ada Lovelace", "ада", "x" * 255])
    async def test_an_operator_may_have_a_persons_name(self, parts: Parts, commands: Commands, subject: str) -> None:
        issued = await commands.token(subject, Kind.OPERATOR, (), None, None)
        assert parts.token_verifier.verify(issued.token, NOW_MS).subject == subject


class TestCleanup:
    @pytest.mark.parametrize("dry_run", [True, False])
    async def test_cleanup_runs_one_pass(self, parts: Parts, commands: Commands, dry_run: bool) -> None:
        assert await commands.cleanup(dry_run) == REPORT
        assert parts.cleanup.asked == [dry_run]

    async def test_a_second_cleanup_at_the_same_time_is_refused(self, parts: Parts, commands: Commands) -> None:
        parts.cleanup.error = CleanupBusy()
        with pytest.raises(CommandFailed, match="cleanup pass is running") as refused:
            await commands.cleanup(dry_run=False)
        assert refused.value.code is ErrorCode.CONFLICT


class TestVerify:
    @pytest.mark.parametrize(
        ("tenant", "device", "asked"),
        [
            (None, None, (None, None)),
            ("acme", None, ("acme", None)),
            ("acme", "pump-7", ("acme", "pump-7")),
            (None, "pump-7", (TENANT, "pump-7")),
        ],
    )
    async def test_a_device_is_looked_up_within_its_tenant(
        self, parts: Parts, tenant: str | None, device: str | None, asked: tuple[str | None, str | None]
    ) -> None:
        class Verifier:
            def __init__(self) -> None:
                self.asked: list[tuple[str | None, str | None]] = []

            async def verify(
                self, tenant: str | None, device: str | None
            ) -> AsyncGenerator[Checked | VerifyProgress, None]:
                self.asked.append((tenant, device))
                return
                yield

        verifier = Verifier()
        commands = Commands(parts, verifier, parts.clock, SystemEntropy(), None, VERSION)
        assert [each async for each in commands.verify(tenant, device)] == []
        assert verifier.asked == [asked]


class TestStatus:
    async def test_a_healthy_daemon_has_no_problems(self, parts: Parts, commands: Commands) -> None:
        status = await commands.status()
        assert status == DaemonStatus(True, VERSION, await parts.catalog.counts(), ())
        assert commands.version == VERSION

    async def test_problems_are_reported(self, parts: Parts, commands: Commands) -> None:
        parts.health.found.append(Problem("disk", "nearly full"))
        status = await commands.status()
        assert status.problems == ("disk: nearly full",)
        assert status.uploads

    async def test_a_failing_catalog_is_not_asked_for_counts(self, parts: Parts, commands: Commands) -> None:
        parts.health.found.append(Problem("catalog", "no answer"))
        status = await commands.status()
        assert (status.uploads, status.problems) == ({}, ("catalog: no answer",))

    async def test_without_a_daemon_no_problems_are_reported(self, parts: Parts) -> None:
        parts.health.found.append(Problem("committer", "does not run"))
        status = await parts.commands(is_running=False).status()
        assert (status.is_running, status.problems) == (False, ())
