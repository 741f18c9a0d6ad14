"""Who is let in: by a token, a secret or its proof, unless an operator has disabled the device. PROTOCOL.md §4."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from daemon.adapters.clock import Clock
from daemon.catalog.records import Device
from daemon.identity.device_secrets import verify_secret
from daemon.identity.tokens import Identity, Kind, Reason, Scope, TokenRefused
from protocol.constants import AUTHORITY_UNLIMITED_S
from protocol.errors import ErrorCode
from protocol.handshake import prove
from protocol.naming import is_device, is_tenant


class Tokens(Protocol):
    """What is known of tokens."""

    def verify(self, token: str, now_ms: int) -> Identity:
        """Raises TokenRefused."""
        ...

    def trusts(self, key: bytes) -> bool:
        """Whether the key with this fingerprint still verifies tokens."""
        ...


class Devices(Protocol):
    """The enrolled devices. Raises CatalogFailed."""

    async def device(self, tenant: str, device: str) -> Device | None: ...

    async def disabled(self) -> frozenset[tuple[str, str]]: ...

    async def replaced(self) -> Mapping[tuple[str, str], int]: ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """A device that may upload until `expires_ms`, in unix milliseconds; None for no end.

    It proved itself by the secret with the number `secret_generation`, by a token that the key with the fingerprint
    `key` signed, or by a token that such a secret had bought. None is what it did not prove itself by.
    """

    tenant: str
    device: str
    expires_ms: int | None
    secret_generation: int | None = None
    key: bytes | None = field(default=None, repr=False, compare=False)

    def is_expired(self, now_ms: int) -> bool:
        """Whether the authority is over."""
        return self.expires_ms is not None and now_ms >= self.expires_ms

    def authority_s(self, now_ms: int) -> int:
        """Whole seconds of authority left, as WELCOME and REFRESHED carry them."""
        if self.expires_ms is None:
            return AUTHORITY_UNLIMITED_S
        return min(max((self.expires_ms - now_ms) // 1000, 0), AUTHORITY_UNLIMITED_S - 1)


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a device may not upload."""

    code: ErrorCode
    detail: str


_WRONG_SECRET = Denied(
    ErrorCode.UNAUTHENTICATED, "the secret does not fit: check the device's name, tenant and secret, or enrol it"
)

_DISABLED = Denied(ErrorCode.DEVICE_DISABLED, "the operator has disabled this device")

_REPLACED = Denied(ErrorCode.UNAUTHENTICATED, "the device's secret was replaced: use the new one")

_KEY_REMOVED = Denied(
    ErrorCode.UNAUTHENTICATED, "the key that signed the token is no longer accepted; get a new one from its issuer"
)

_NO_KEY = bytes(32)
"""In place of an unknown device's key, so that its answer takes as long as any other."""


class Gate:
    """Decides who is let in, and who may stay. Await `load` first, and again when devices were changed."""

    def __init__(self, tokens: Tokens, devices: Devices, clock: Clock) -> None:
        self._tokens = tokens
        self._devices = devices
        self._clock = clock
        self._disabled: frozenset[tuple[str, str]] = frozenset()
        self._replaced: Mapping[tuple[str, str], int] = {}

    async def load(self) -> None:
        """Read which devices are disabled, and whose secrets were replaced. Raises CatalogFailed."""
        self._disabled = await self._devices.disabled()
        self._replaced = await self._devices.replaced()

    def is_disabled(self, tenant: str, device: str) -> bool:
        """Whether an operator has disabled the device."""
        return (tenant, device) in self._disabled

    def revoked(self, admitted: Admitted) -> Denied | None:
        """Why a device that was let in may no longer stay; None if it may. Expiry is not looked at."""
        if admitted.key is not None and not self._tokens.trusts(admitted.key):
            return _KEY_REMOVED
        return self.refusal(admitted.tenant, admitted.device, admitted.secret_generation)

    def refusal(self, tenant: str, device: str, secret_generation: int | None) -> Denied | None:
        """Why a device whose credential is good is refused all the same; None if it is not."""
        if self.is_disabled(tenant, device):
            return _DISABLED
        if secret_generation is not None and secret_generation < self._replaced.get((tenant, device), 0):
            return _REPLACED
        return None

    def admit_token(self, token: str) -> Admitted | Denied:
        """Whether the token lets a device upload."""
        try:
            identity = self._tokens.verify(token, self._clock.wall_ms())
        except TokenRefused as refused:
            expired = refused.reason is Reason.EXPIRED
            return Denied(ErrorCode.TOKEN_EXPIRED if expired else ErrorCode.UNAUTHENTICATED, str(refused))
        if identity.kind is not Kind.DEVICE or Scope.UPLOAD not in identity.scopes:
            return Denied(ErrorCode.FORBIDDEN, "the token is not a device's with the scope 'upload'")
        expires_ms = None if identity.expires_s is None else identity.expires_s * 1000
        return self._unless_refused(
            Admitted(identity.tenant, identity.subject, expires_ms, identity.secret_generation, identity.key)
        )

    async def admit_proof(
        self, tenant: str, device: str, *, hello: bytes, challenge: bytes, proof: bytes
    ) -> Admitted | Denied:
        """Whether the proof is that of an enrolled device. Raises CatalogFailed."""
        return await self._admit_enrolled(
            tenant, device, lambda key: hmac.compare_digest(prove(key, hello, challenge), proof)
        )

    async def admit_secret(self, tenant: str, device: str, secret: str) -> Admitted | Denied:
        """Whether the secret, as text, is that of an enrolled device. Raises CatalogFailed."""
        return await self._admit_enrolled(tenant, device, lambda key: verify_secret(key, secret))

    async def _admit_enrolled(self, tenant: str, device: str, fits: Callable[[bytes], bool]) -> Admitted | Denied:
        """An unknown device and a wrong secret get the same answer. A disabled device must prove itself to learn it."""
        # Names that nobody can enrol may not even be text, and would fail in the catalog.
        can_exist = is_tenant(tenant) and is_device(device)
        known = await self._devices.device(tenant, device) if can_exist else None
        key = None if known is None else known.key
        is_proven = fits(key or _NO_KEY)
        if known is None or not key or not is_proven:
            return _WRONG_SECRET
        if known.disabled_ms is not None:
            return _DISABLED
        return self._unless_refused(Admitted(tenant, device, None, known.generation))

    def _unless_refused(self, admitted: Admitted) -> Admitted | Denied:
        return self.refusal(admitted.tenant, admitted.device, admitted.secret_generation) or admitted
