"""How a device proves who it is. PROTOCOL.md §4 and §13."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from protocol.constants import NONCE_BYTES, CredentialKind
from protocol.handshake import device_key, prove, read_secret

TokenSource = Callable[[], Awaitable[str]]
"""Gets a token that is valid now; raises CredentialError for trouble that may pass."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The fields of HELLO that say who the device is."""

    kind: CredentialKind
    token: str | None = None
    tenant: str | None = None
    device: str | None = None
    nonce: bytes | None = None


class Credentials(Protocol):
    """What a connection needs of a credential."""

    @property
    def refreshable(self) -> bool:
        """Whether `refresh` gets a new token for a running connection."""
        ...

    async def offer(self) -> Offer:
        """The fields for HELLO. Raises CredentialError."""
        ...

    def prove(self, hello: bytes, challenge: bytes) -> bytes | None:
        """The proof for these two frames as sent; None if the credential has none."""
        ...

    async def refresh(self) -> str:
        """A new token. Raises CredentialError."""
        ...

    def discard(self, *, refused: bool) -> bool:
        """The server refused it at the handshake (`refused`), or later. Returns whether the next offer would differ."""
        ...


class TokenCredentials:
    """A bearer token: a fixed one, or a callback that gets a new one whenever that is needed."""

    def __init__(self, token: str | TokenSource) -> None:
        self._source = None if isinstance(token, str) else token
        self._token = token if isinstance(token, str) else None
        self._is_new = False

    @property
    def refreshable(self) -> bool:
        return self._source is not None

    async def offer(self) -> Offer:
        self._is_new = self._token is None
        token = await self.refresh() if self._token is None else self._token
        return Offer(CredentialKind.TOKEN, token=token)

    def prove(self, hello: bytes, challenge: bytes) -> bytes | None:  # noqa: ARG002 - the interface's arguments
        return None

    async def refresh(self) -> str:
        if self._source is None:
            raise TypeError("a fixed token cannot be refreshed")
        self._token = await self._source()
        return self._token

    def discard(self, *, refused: bool) -> bool:
        if self._source is None:
            return False
        self._token = None
        return not (refused and self._is_new)


class SecretCredentials:
    """The secret that a device was enrolled with; it never leaves the device. `nonce` returns 32 random bytes.

    `secret`: its bytes, or the text that `uplinkd device add` printed. Raises ValueError if that text is no secret.
    """

    def __init__(
        self,
        device: str,
        secret: bytes | str,
        tenant: str | None = None,
        nonce: Callable[[], bytes] = lambda: secrets.token_bytes(NONCE_BYTES),
    ) -> None:
        self._device = device
        self._tenant = tenant
        self._key = device_key(read_secret(secret) if isinstance(secret, str) else secret)
        self._nonce = nonce

    @property
    def refreshable(self) -> bool:
        return False

    async def offer(self) -> Offer:
        return Offer(CredentialKind.DEVICE_SECRET, tenant=self._tenant, device=self._device, nonce=self._nonce())

    def prove(self, hello: bytes, challenge: bytes) -> bytes | None:
        return prove(self._key, hello, challenge)

    async def refresh(self) -> str:
        raise TypeError("a device secret is proven by a new connection, not refreshed")

    def discard(self, *, refused: bool) -> bool:
        return not refused
