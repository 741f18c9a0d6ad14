"""From HELLO to WELCOME or REFUSED: the credential, and the proof of a device's secret. PROTOCOL.md §4 and §13."""

from dataclasses import dataclass

from daemon.adapters.entropy import Entropy
from daemon.catalog.expiry import ExpiryPolicy
from daemon.identity.gate import Admitted, Denied, Gate
from protocol import frames
from protocol.constants import NONCE_BYTES, VERSION, CredentialKind, Durability
from protocol.errors import ErrorCode
from protocol.events import HelloReceived
from protocol.server import ServerConnection


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """What every device gets in WELCOME, and how long it may keep a token that has expired."""

    durability: Durability
    features: int
    ranges_max: int
    streams_max: int
    keepalive_s: float
    chunk_bytes_max: int
    window_bytes: int
    grace_s: float
    expiry: ExpiryPolicy
    tenant_default: str


class Handshake:
    """One device that wants to be let in. It ends with a verdict, and is then forgotten."""

    __slots__ = ("_challenge", "_connection", "_gate", "_raw", "_tenant_default", "hello")

    def __init__(self, connection: ServerConnection, received: HelloReceived, gate: Gate, tenant_default: str) -> None:
        self._connection = connection
        self._gate = gate
        self._tenant_default = tenant_default
        self._raw = received.raw
        self._challenge = b""
        self.hello = received.hello

    @property
    def last_end(self) -> str | None:
        """Why the device's last connection ended, as it reports it: the name of an error, or a number."""
        code = self.hello.last_end
        return next((each.name for each in ErrorCode if each == code), f"0x{code:04x}") if code else None

    def start(self, entropy: Entropy) -> Admitted | Denied | None:
        """The verdict on a token. A device with a secret gets a CHALLENGE instead, and there is no verdict yet."""
        if self.hello.token is not None and self.hello.credential == CredentialKind.TOKEN:
            return self._gate.admit_token(self.hello.token)
        self._challenge = self._connection.challenge(entropy.bytes(NONCE_BYTES))
        return None

    async def check(self, proof: bytes) -> Admitted | Denied:
        """The verdict on the proof of a secret. Raises CatalogFailed."""
        hello = self.hello
        tenant = hello.tenant if hello.tenant is not None else self._tenant_default
        return await self._gate.admit_proof(
            tenant, hello.device or "", hello=self._raw, challenge=self._challenge, proof=proof
        )

    def welcome(self, admitted: Admitted, policy: SessionPolicy, connection_id: int, now_ms: int) -> None:
        """Let the device in."""
        self._connection.welcome(
            frames.Welcome(
                version=VERSION,
                durability=policy.durability,
                ranges_max=policy.ranges_max,
                streams_max=policy.streams_max,
                keepalive_s=int(policy.keepalive_s),
                features=policy.features & self.hello.features,
                chunk_bytes_max=policy.chunk_bytes_max,
                window_bytes=policy.window_bytes,
                authority_s=admitted.authority_s(now_ms),
                server_time_ms=now_ms,
                connection_id=connection_id,
            )
        )


def refresh(gate: Gate, current: Admitted | None, token: str) -> Admitted | Denied:
    """The verdict on the token of a REFRESH, which must be for the device that is `current`ly let in."""
    verdict = gate.admit_token(token)
    if isinstance(verdict, Denied):
        return verdict
    if current is None or (verdict.tenant, verdict.device) != (current.tenant, current.device):
        return Denied(ErrorCode.UNAUTHENTICATED, "the new token is for another device")
    return verdict
