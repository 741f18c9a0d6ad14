"""What an operator may ask of the daemon, whether it runs or its data directory is merely held."""

import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from daemon.adapters.clock import Clock
from daemon.adapters.entropy import Entropy
from daemon.catalog.records import Device, State
from daemon.identity.device_secrets import derive_key, make_secret, read_secret
from daemon.identity.tokens import Identity, Kind, Scope
from daemon.settings import YEAR_S, Settings
from daemon.upkeep.cleanup import CleanupBusy, CleanupReport
from daemon.upkeep.verify import Checked, Progress
from protocol.errors import ErrorCode
from protocol.naming import is_text

SUBJECT_CHARS_MAX = 255
"""The longest name of an operator that a token may carry."""

SCOPES: Mapping[Kind, frozenset[Scope]] = {
    Kind.DEVICE: frozenset({Scope.UPLOAD, Scope.READ, Scope.DELETE}),
    Kind.OPERATOR: frozenset({Scope.READ, Scope.DELETE, Scope.ADMIN}),
}
"""What a token of each kind can give; a verifier drops the rest."""

SCOPES_DEFAULT: Mapping[Kind, frozenset[Scope]] = {
    Kind.DEVICE: frozenset({Scope.UPLOAD}),
    Kind.OPERATOR: frozenset({Scope.READ}),
}
"""The least that is of use: a token that may delete, or rule, is asked for by name."""

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, slots=True)
class DeviceAdded:
    """A device that was enrolled. Its secret is known to nobody else, and cannot be had again."""

    tenant: str
    device: str
    secret: str = field(repr=False)
    is_disabled: bool


@dataclass(frozen=True, slots=True)
class DeviceListed:
    """A device; one that is not enrolled was disabled, so that its tokens are refused. Times are Unix milliseconds."""

    tenant: str
    device: str
    is_enrolled: bool
    created_ms: int
    disabled_ms: int | None


@dataclass(frozen=True, slots=True)
class DeviceSwitched:
    """A device is disabled, or enabled, now; `changed` tells whether it was not before."""

    tenant: str
    device: str
    is_disabled: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """A bearer token, whom it speaks for, and how long."""

    tenant: str
    subject: str
    kind: Kind
    scopes: tuple[Scope, ...]
    expires_in_s: float
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Status:
    """How the daemon is. `problems` is empty when it can receive and serve files, or does not run.

    `uploads` counts them by state; it is empty while the catalog does not answer.
    """

    is_running: bool
    version: str
    uploads: Mapping[State, int]
    problems: tuple[str, ...]


class CommandFailed(Exception):  # noqa: N818 - what happened, as the rest of the project says it
    """A command was not carried out: the registry's code, and what happened, to what, and what to do."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Catalog(Protocol):
    """What commands need of the catalog. All methods raise CatalogFailed."""

    async def add_device(self, device: Device, *, replace: bool = False) -> bool: ...

    async def device(self, tenant: str, device: str) -> Device | None: ...

    async def list_devices(self, tenant: str | None = None) -> Sequence[Device]: ...

    async def set_disabled(self, tenant: str, device: str, disabled: bool, now_ms: int) -> bool: ...

    async def counts(self) -> Mapping[State, int]: ...


class Issuer(Protocol):
    """Issues tokens."""

    def issue(self, identity: Identity, ttl_s: float, now_ms: int) -> str: ...


class Cleaner(Protocol):
    """Cleanup on demand. Raises CleanupBusy, CatalogFailed, OSError."""

    async def once(self, dry_run: bool) -> CleanupReport: ...


class Gate(Protocol):
    """Learns which devices are disabled. Raises CatalogFailed."""

    async def load(self) -> None: ...


class Problem(Protocol):
    """Which part is in trouble, and what the trouble is."""

    @property
    def component(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Parts(Protocol):
    """What commands work on, asked for anew each time, since a reload replaces the issuer and the settings."""

    @property
    def catalog(self) -> Catalog: ...
    @property
    def issuer(self) -> Issuer: ...
    @property
    def cleanup(self) -> Cleaner: ...
    @property
    def gate(self) -> Gate: ...
    @property
    def settings(self) -> Settings: ...
    async def problems(self) -> Sequence[Problem]: ...


class Verifier(Protocol):
    """Checks complete files. Raises CatalogFailed."""

    def verify(self, tenant: str | None, device: str | None) -> AsyncGenerator[Checked | Progress, None]: ...


class Commands:
    """All commands. A tenant that is None is the default one, but where all tenants can be meant.

    All methods raise CommandFailed and CatalogFailed.
    """

    __slots__ = ("_clock", "_cut", "_entropy", "_parts", "_verifier", "_version")

    def __init__(
        self,
        parts: Parts,
        verifier: Verifier,
        clock: Clock,
        entropy: Entropy,
        cut: Callable[[str, str], object] | None,
        version: str,
    ) -> None:
        """`cut(tenant, device)` ends a disabled device's connections; None says that no daemon runs."""
        self._parts = parts
        self._verifier = verifier
        self._clock = clock
        self._entropy = entropy
        self._cut = cut
        self._version = version

    @property
    def version(self) -> str:
        """The daemon's."""
        return self._version

    async def add_device(self, tenant: str | None, device: str, *, replace: bool = False) -> DeviceAdded:
        """Enrol a device, or with `replace` give one a new secret in place of its old one. A disabled one stays so."""
        tenant = self._tenant(tenant)
        _check_device(device)
        secret = make_secret(self._entropy)
        record = Device(tenant, device, derive_key(read_secret(secret)), self._clock.wall_ms())
        if not await self._parts.catalog.add_device(record, replace=replace):
            raise CommandFailed(
                ErrorCode.CONFLICT,
                f"device {device} of tenant {tenant} is enrolled already, and its secret is not kept: "
                "use the one that was shown then, give it a new one by --replace, or use another name",
            )
        added = await self._parts.catalog.device(tenant, device)
        return DeviceAdded(tenant, device, secret, added is not None and added.disabled_ms is not None)

    async def list_devices(self, tenant: str | None) -> tuple[DeviceListed, ...]:
        """The tenant's devices, None for all tenants'; by tenant and name."""
        if tenant is not None:
            _check_tenant(tenant)
        return tuple(
            DeviceListed(each.tenant, each.device, each.key is not None, each.created_ms, each.disabled_ms)
            for each in await self._parts.catalog.list_devices(tenant)
        )

    async def disable(self, tenant: str | None, device: str) -> DeviceSwitched:
        """Let the device in no more, whatever it proves or holds, and end its connections. It need not be enrolled."""
        switched = await self._switch(tenant, device, disabled=True)
        if self._cut is not None:
            self._cut(switched.tenant, device)
        return switched

    async def enable(self, tenant: str | None, device: str) -> DeviceSwitched:
        """Let a disabled device in again."""
        return await self._switch(tenant, device, disabled=False)

    async def _switch(self, tenant: str | None, device: str, *, disabled: bool) -> DeviceSwitched:
        tenant = self._tenant(tenant)
        _check_device(device)
        changed = await self._parts.catalog.set_disabled(tenant, device, disabled, self._clock.wall_ms())
        # Also when nothing changed: an earlier attempt may have failed right here.
        await self._parts.gate.load()
        return DeviceSwitched(tenant, device, disabled, changed)

    async def token(
        self, subject: str, kind: Kind, scopes: Collection[Scope], ttl_s: float | None, tenant: str | None
    ) -> TokenIssued:
        """A token good for `ttl_s` seconds; None takes the settings' time, no scopes take SCOPES_DEFAULT."""
        tenant = self._tenant(tenant)
        granted = frozenset(scopes) or SCOPES_DEFAULT[kind]
        if impossible := sorted(granted - SCOPES[kind]):
            raise _invalid(
                f"a token for {kind} cannot give {', '.join(impossible)}: {', '.join(sorted(SCOPES[kind]))} can"
            )
        if ttl_s is None:
            ttl_s = self._parts.settings.auth.token_ttl_s
        if not 1 <= ttl_s <= YEAR_S:
            raise _invalid(f"a token cannot be good for {ttl_s:g} s: 1 to {YEAR_S} s (366 days) are possible")
        if kind is Kind.DEVICE:
            _check_device(subject)
            known = await self._parts.catalog.device(tenant, subject)
            if known is not None and known.disabled_ms is not None:
                raise CommandFailed(
                    ErrorCode.DEVICE_DISABLED,
                    f"device {subject} of tenant {tenant} is disabled, so its token would be refused: enable it first",
                )
        elif not (is_text(subject) and 1 <= len(subject) <= SUBJECT_CHARS_MAX):
            raise _invalid(f"an operator's name has 1 to {SUBJECT_CHARS_MAX} printable characters")
        identity = Identity(tenant, subject, kind, granted, None)
        token = self._parts.issuer.issue(identity, ttl_s, self._clock.wall_ms())
        return TokenIssued(tenant, subject, kind, tuple(sorted(granted)), ttl_s, token)

    async def cleanup(self, dry_run: bool) -> CleanupReport:
        """One pass of cleanup now; with `dry_run` it only counts. Raises OSError."""
        try:
            return await self._parts.cleanup.once(dry_run)
        except CleanupBusy as error:
            raise CommandFailed(ErrorCode.CONFLICT, "a cleanup pass is under way: ask again when it is done") from error

    def verify(self, tenant: str | None, device: str | None) -> AsyncGenerator[Checked | Progress, None]:
        """Complete files read back and compared with their digests: the device's, or else the tenant's, or else all."""
        if device is not None:
            _check_device(device)
            tenant = self._tenant(tenant)
        elif tenant is not None:
            _check_tenant(tenant)
        return self._verifier.verify(tenant, device)

    async def status(self) -> Status:
        """How the daemon is, and how many uploads there are in each state."""
        is_running = self._cut is not None
        problems = await self._parts.problems() if is_running else ()
        # A catalog in trouble may not answer, and that it is in trouble is the answer.
        answers = all(each.component != "catalog" for each in problems)
        uploads = await self._parts.catalog.counts() if answers else {}
        told = tuple(f"{each.component}: {each.detail}" for each in problems)
        return Status(is_running, self._version, uploads, told)

    def _tenant(self, tenant: str | None) -> str:
        if tenant is None:
            return self._parts.settings.auth.tenant_default
        _check_tenant(tenant)
        return tenant


def _check_tenant(tenant: str) -> None:
    if not _TENANT.fullmatch(tenant):
        raise _invalid(
            f"{tenant!r} is no tenant's name: use 1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit"
        )


def _check_device(device: str) -> None:
    if not _DEVICE.fullmatch(device):
        raise _invalid(
            f"{device!r} is no device's name: use 1 to 128 of A-Z a-z 0-9 . _ : - that begin with a letter or digit"
        )


def _invalid(detail: str) -> CommandFailed:
    return CommandFailed(ErrorCode.REQUEST_INVALID, detail)
