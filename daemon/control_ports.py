"""The control plane's ports, implemented by the core. control/ports.py declares them."""

from collections.abc import Mapping
from dataclasses import dataclass

from structlog.stdlib import BoundLogger

from control import ports
from control.ports import Permission
from daemon.adapters.entropy import Entropy
from daemon.catalog.expiry import expires_ms
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.records import CleanupReport, ListQuery, Page, State, Upload
from daemon.core import Core
from daemon.identity.gate import Denied
from daemon.identity.tokens import Identity, Kind, Reason, Scope, TokenRefused
from daemon.storage.interface import Sendable
from daemon.telemetry.exposition import Exposition
from daemon.upkeep.cleanup import CleanupBusy
from protocol.errors import ErrorCode

_PERMISSIONS: Mapping[Scope, frozenset[Permission]] = {
    Scope.UPLOAD: frozenset({Permission.READ, Permission.DELETE}),
    Scope.READ: frozenset({Permission.READ}),
    Scope.DELETE: frozenset({Permission.DELETE}),
    Scope.ADMIN: frozenset({Permission.ADMIN}),
}
"""What each scope of a token permits over HTTP. A device that may upload may read and delete what it uploaded."""


def _bytes_gone(file_id: int) -> ports.RequestRefused:
    return ports.RequestRefused(ErrorCode.GONE, 410, f"the bytes of file {file_id:016x} are gone")


def _unavailable(what: str) -> ports.RequestRefused:
    return ports.RequestRefused(
        ErrorCode.UNAVAILABLE, 503, f"{what} does not answer: try again, and look at /readyz", 5
    )


@dataclass(frozen=True, slots=True)
class _Authenticator:
    core: Core

    def authenticate(self, token: str) -> ports.Principal:
        try:
            identity = self.core.verifier.verify(token, self.core.machine.clock.wall_ms())
        except TokenRefused as refused:
            code = ErrorCode.TOKEN_EXPIRED if refused.reason is Reason.EXPIRED else ErrorCode.UNAUTHENTICATED
            raise ports.RequestRefused(code, 401, str(refused)) from refused
        if identity.kind is Kind.DEVICE:
            denied = self.core.gate.refusal(identity.tenant, identity.subject, identity.secret_generation)
            if denied is not None:
                raise ports.RequestRefused(denied.code, 401, denied.detail)
        permissions = frozenset[Permission]().union(*(_PERMISSIONS[scope] for scope in identity.scopes))
        return ports.Principal(identity.tenant, identity.subject, identity.kind is Kind.OPERATOR, permissions)


@dataclass(frozen=True, slots=True)
class _TokenExchange:
    core: Core

    async def exchange(self, tenant: str | None, device: str, secret: str) -> ports.IssuedToken:
        core = self.core
        tenant = tenant if tenant is not None else core.settings.auth.tenant_default
        try:
            verdict = await core.gate.admit_secret(tenant, device, secret)
        except CatalogFailed as error:
            raise _unavailable("the catalog") from error
        if isinstance(verdict, Denied):
            status = 403 if verdict.code is ErrorCode.DEVICE_DISABLED else 401
            raise ports.RequestRefused(verdict.code, status, verdict.detail)
        ttl_s = core.settings.auth.token_ttl_s
        identity = Identity(tenant, device, Kind.DEVICE, frozenset({Scope.UPLOAD}), None, verdict.secret_generation)
        return ports.IssuedToken(core.issuer.issue(identity, ttl_s, core.machine.clock.wall_ms()), int(ttl_s))


@dataclass(frozen=True, slots=True)
class _Files:
    core: Core

    async def list(self, query: ListQuery) -> Page:
        try:
            return await self.core.catalog.list(query)
        except CatalogFailed as error:
            raise _unavailable("the catalog") from error

    async def get(self, tenant: str, file_id: int) -> Upload | None:
        try:
            upload = await self.core.catalog.get(file_id)
        except CatalogFailed as error:
            raise _unavailable("the catalog") from error
        return None if upload is None or upload.tenant != tenant else upload

    async def find(self, tenant: str, device: str, name: str) -> Upload | None:
        try:
            return await self.core.catalog.find_readable(tenant, device, name)
        except CatalogFailed as error:
            raise _unavailable("the catalog") from error

    def expires_ms(self, file: Upload) -> int | None:
        return expires_ms(self.core.cleanup.policy.expiry, file)


@dataclass(frozen=True, slots=True)
class _Contents:
    core: Core

    def path(self, file_id: int) -> str:
        return self.core.storage.contents.path(file_id)

    async def open(self, file_id: int) -> Sendable:
        try:
            return await self.core.storage.contents.open(file_id)
        except FileNotFoundError as error:
            raise _bytes_gone(file_id) from error


@dataclass(frozen=True, slots=True)
class _Uploads:
    core: Core

    async def delete(self, tenant: str, file_id: int, by: ports.Principal) -> None:
        core = self.core
        try:
            upload = await core.catalog.get(file_id)
            if upload is None or upload.tenant != tenant:
                raise ports.RequestRefused(ErrorCode.RESOURCE_UNKNOWN, 404, f"there is no file {file_id:016x}")
            ended = await core.ends.end(file_id, State.DELETED)
        except CatalogFailed as error:
            raise _unavailable("the catalog") from error
        if ended is None:
            raise ports.RequestRefused(ErrorCode.GONE, 410, f"file {file_id:016x} has ended already")
        core.log.info("upload deleted", upload=f"{file_id:016x}", device=upload.device, by=by.subject)
        await core.ends.remove_bytes(file_id)


@dataclass(frozen=True, slots=True)
class _Cleaner:
    core: Core

    async def run(self, dry_run: bool) -> CleanupReport:
        try:
            return await self.core.cleanup.once(dry_run)
        except CleanupBusy as error:
            raise ports.RequestRefused(
                ErrorCode.CONFLICT, 409, "a cleanup pass is running: try again when it is done", 5
            ) from error
        except (CatalogFailed, OSError) as error:
            raise _unavailable("the catalog or the disk") from error


PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes that machines ask every few seconds. Their requests are logged at level debug unless they fail."""


@dataclass(frozen=True, slots=True)
class _Log:
    log: BoundLogger

    def exchange(self, exchange: ports.Exchange) -> None:
        is_probe = exchange.route in PROBES and exchange.status < 500
        (self.log.debug if is_probe else self.log.info)(
            "http request",
            request=exchange.request_id,
            method=exchange.method,
            path=exchange.path,
            status=exchange.status,
            duration_s=round(exchange.duration_s, 6),
            sent_bytes=exchange.sent_bytes,
            error=exchange.error or None,
            subject=exchange.subject or None,
            peer=exchange.remote,
        )

    def failure(self, request_id: str, route: str, error: Exception) -> None:
        self.log.error("http request failed", request=request_id, route=route, exc_info=error)


@dataclass(frozen=True, slots=True)
class _RequestIds:
    entropy: Entropy

    def new(self) -> str:
        return self.entropy.bytes(12).hex()


def control_ports(core: Core, exposition: Exposition) -> ports.Ports:
    """The control plane's ports on this core."""
    return ports.Ports(
        authenticator=_Authenticator(core),
        token_exchange=_TokenExchange(core),
        files=_Files(core),
        contents=_Contents(core),
        uploads=_Uploads(core),
        cleaner=_Cleaner(core),
        health=core.health,
        metrics_page=exposition,
        http_metrics=core.metrics.http,
        log=_Log(core.log),
        request_ids=_RequestIds(core.machine.entropy),
        clock=core.machine.clock,
    )
