"""The operator's commands, for a running daemon or directly on a locked data directory."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from daemon.adapters.clock import Clock
from daemon.adapters.entropy import Entropy
from daemon.admin.messages import (
    AddDevice,
    AskStatus,
    Clean,
    IssueToken,
    ListDevices,
    Request,
    Result,
    SwitchDevice,
    Verify,
)
from daemon.admin.results import CommandFailed, DaemonStatus, DeviceAdded, DeviceListed, DeviceSwitched, TokenIssued
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import CleanupReport, Device, State
from daemon.identity.device_secrets import make_secret
from daemon.identity.tokens import SCOPES, SCOPES_DEFAULT, SUBJECT_CHARS_MAX, Identity, Kind, Scope, is_operator
from daemon.sections import YEAR_S
from daemon.settings import Settings
from daemon.upkeep.cleanup import CleanupBusy
from daemon.upkeep.verify import Checked, VerifyProgress
from protocol.errors import ErrorCode
from protocol.handshake import device_key, read_secret
from protocol.naming import is_device, is_tenant


class DeviceCatalog(Protocol):
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


class Revocations(Protocol):
    """Knows which devices are disabled, and whose secrets were replaced. Raises CatalogFailed."""

    async def load(self) -> None: ...


class KnownProblem(Protocol):
    """A part that has a problem, and the problem."""

    @property
    def component(self) -> str: ...
    @property
    def detail(self) -> str: ...


class ProblemSource(Protocol):
    """Finds the current problems."""

    async def problems(self) -> Sequence[KnownProblem]: ...


class Parts(Protocol):
    """The parts that commands use. A reload replaces the issuer and the settings, so commands must not keep either."""

    @property
    def catalog(self) -> DeviceCatalog: ...
    @property
    def issuer(self) -> Issuer: ...
    @property
    def cleanup(self) -> Cleaner: ...
    @property
    def gate(self) -> Revocations: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def health(self) -> ProblemSource: ...


class FileVerifier(Protocol):
    """Checks complete files. Raises CatalogFailed."""

    def verify(self, tenant: str | None, device: str | None) -> AsyncGenerator[Checked | VerifyProgress, None]: ...


class Commands:
    """All commands. A tenant of None is the default tenant, except where None means all tenants.

    All methods raise CommandFailed and CatalogFailed.
    """

    __slots__ = ("_clock", "_cut", "_entropy", "_parts", "_verifier", "_version")

    def __init__(
        self,
        parts: Parts,
        verifier: FileVerifier,
        clock: Clock,
        entropy: Entropy,
        cut: Callable[[str, str], object] | None,
        version: str,
    ) -> None:
        """`cut(tenant, device)` ends a device's connections that may not stay; None if no daemon runs."""
        self._parts = parts
        self._verifier = verifier
        self._clock = clock
        self._entropy = entropy
        self._cut = cut
        self._version = version

    @property
    def version(self) -> str:
        """The daemon's version."""
        return self._version

    async def add_device(self, tenant: str | None, device: str, *, replace: bool = False) -> DeviceAdded:
        """Enrol a device; a disabled one stays disabled.

        `replace` gives an enrolled one a new secret, and ends the connections and tokens that the old one opened.
        """
        tenant = self._tenant(tenant)
        _check_device(device)
        secret = make_secret(self._entropy)
        record = Device(tenant, device, device_key(read_secret(secret)), self._clock.wall_ms())
        if not await self._parts.catalog.add_device(record, replace=replace):
            raise CommandFailed(
                ErrorCode.CONFLICT,
                f"device {device} of tenant {tenant} is already enrolled, and its secret is not kept: "
                "use the secret shown then, get a new one with --replace, or use another name",
            )
        if replace:
            await self._revoke(tenant, device)
        added = await self._parts.catalog.device(tenant, device)
        return DeviceAdded(tenant, device, secret, added is not None and added.disabled_ms is not None)

    async def list_devices(self, tenant: str | None) -> tuple[DeviceListed, ...]:
        """The devices of a tenant, or of all tenants (None), sorted by tenant and name."""
        if tenant is not None:
            _check_tenant(tenant)
        return tuple(
            DeviceListed(each.tenant, each.device, each.key is not None, each.created_ms, each.disabled_ms)
            for each in await self._parts.catalog.list_devices(tenant)
        )

    async def disable(self, tenant: str | None, device: str) -> DeviceSwitched:
        """Refuse the device whatever its credential, and end its connections. It need not be enrolled."""
        return await self._switch(tenant, device, disabled=True)

    async def enable(self, tenant: str | None, device: str) -> DeviceSwitched:
        """Admit a disabled device again."""
        return await self._switch(tenant, device, disabled=False)

    async def _switch(self, tenant: str | None, device: str, *, disabled: bool) -> DeviceSwitched:
        tenant = self._tenant(tenant)
        _check_device(device)
        changed = await self._parts.catalog.set_disabled(tenant, device, disabled, self._clock.wall_ms())
        # Also when nothing changed: an earlier attempt may have failed at this point.
        if disabled:
            await self._revoke(tenant, device)
        else:
            await self._parts.gate.load()
        return DeviceSwitched(tenant, device, disabled, changed)

    async def _revoke(self, tenant: str, device: str) -> None:
        await self._parts.gate.load()
        if self._cut is not None:
            self._cut(tenant, device)

    async def token(
        self, subject: str, kind: Kind, scopes: Collection[Scope], ttl_s: float | None, tenant: str | None
    ) -> TokenIssued:
        """A token that lasts `ttl_s` seconds (None: as set in the settings). Without scopes, it has SCOPES_DEFAULT."""
        tenant = self._tenant(tenant)
        granted = frozenset(scopes) or SCOPES_DEFAULT[kind]
        if impossible := sorted(granted - SCOPES[kind]):
            raise _invalid(
                f"a token for {kind} cannot give {', '.join(impossible)}: {', '.join(sorted(SCOPES[kind]))} can"
            )
        if ttl_s is None:
            ttl_s = self._parts.settings.auth.token_ttl_s
        if not 1 <= ttl_s <= YEAR_S:
            raise _invalid(f"a token cannot last {ttl_s:g} s: choose 1 to {YEAR_S} s (366 days)")
        if kind is Kind.DEVICE:
            _check_device(subject)
            known = await self._parts.catalog.device(tenant, subject)
            if known is not None and known.disabled_ms is not None:
                raise CommandFailed(
                    ErrorCode.DEVICE_DISABLED,
                    f"device {subject} of tenant {tenant} is disabled, so its token would be refused: enable it first",
                )
        elif not is_operator(subject):
            raise _invalid(f"an operator's name has 1 to {SUBJECT_CHARS_MAX} printable characters")
        identity = Identity(tenant, subject, kind, granted, None)
        token = self._parts.issuer.issue(identity, ttl_s, self._clock.wall_ms())
        return TokenIssued(tenant, subject, kind, tuple(sorted(granted)), ttl_s, token)

    async def cleanup(self, dry_run: bool) -> CleanupReport:
        """Run one cleanup pass now; `dry_run` only counts. Raises OSError."""
        try:
            return await self._parts.cleanup.once(dry_run)
        except CleanupBusy as error:
            raise CommandFailed(ErrorCode.CONFLICT, "a cleanup pass is running: try again when it is done") from error

    def verify(self, tenant: str | None, device: str | None) -> AsyncGenerator[Checked | VerifyProgress, None]:
        """Read complete files back and compare their digests: those of a device, of a tenant, or all."""
        if device is not None:
            _check_device(device)
            tenant = self._tenant(tenant)
        elif tenant is not None:
            _check_tenant(tenant)
        return self._verifier.verify(tenant, device)

    async def status(self) -> DaemonStatus:
        """The daemon's problems, and how many uploads are in each state."""
        is_running = self._cut is not None
        problems = await self._parts.health.problems() if is_running else ()
        # A failing catalog may not answer, and its problem is reported anyway.
        answers = all(each.component != "catalog" for each in problems)
        uploads = await self._parts.catalog.counts() if answers else {}
        details = tuple(f"{each.component}: {each.detail}" for each in problems)
        return DaemonStatus(is_running, self._version, uploads, details)

    def _tenant(self, tenant: str | None) -> str:
        if tenant is None:
            return self._parts.settings.auth.tenant_default
        _check_tenant(tenant)
        return tenant


async def perform(commands: Commands, request: Request) -> AsyncGenerator[Result, None]:
    """Carry the request out. Raises CommandFailed."""
    try:
        match request:
            case ListDevices():
                for each in await commands.list_devices(request.tenant):
                    yield each
            case Verify():
                async with aclosing(commands.verify(request.tenant, request.device)) as results:
                    async for result in results:
                        yield result
            case _:
                yield await _perform_one(commands, request)
    except (CatalogFailed, OSError) as error:
        raise CommandFailed(ErrorCode.UNAVAILABLE, str(error)) from error


async def _perform_one(
    commands: Commands, request: AddDevice | SwitchDevice | IssueToken | Clean | AskStatus
) -> Result:
    match request:
        case AddDevice():
            return await commands.add_device(request.tenant, request.device, replace=request.replace)
        case SwitchDevice():
            switch = commands.disable if request.disable else commands.enable
            return await switch(request.tenant, request.device)
        case IssueToken():
            return await commands.token(request.subject, request.kind, request.scopes, request.ttl_s, request.tenant)
        case Clean():
            return await commands.cleanup(request.dry_run)
        case AskStatus():
            return await commands.status()


def _check_tenant(tenant: str) -> None:
    if not is_tenant(tenant):
        raise _invalid(
            f"{tenant!r} is not a valid tenant name: use 1 to 64 of A-Z a-z 0-9 . _ - and a letter or digit first"
        )


def _check_device(device: str) -> None:
    if not is_device(device):
        raise _invalid(
            f"{device!r} is not a valid device name: use 1 to 128 of A-Z a-z 0-9 . _ : - and a letter or digit first"
        )


def _invalid(detail: str) -> CommandFailed:
    return CommandFailed(ErrorCode.REQUEST_INVALID, detail)
