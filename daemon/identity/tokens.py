"""Identities and their rights: tokens verified and issued.

A token's claims, beyond `iss`, `aud` and `exp`, which are always required:

| claim    | meaning                                                                    | when absent       |
| -------- | -------------------------------------------------------------------------- | ----------------- |
| `sub`    | the device, or the operator                                                | refused           |
| tenant   | whose files (the claim's name is a setting)                                | the default one   |
| `role`   | `device` or `operator`                                                     | `device`          |
| `scope`  | words among `upload`, `read`, `delete`, `admin`; others are ignored        | device: `upload`  |
| `nbf`, `iat` | not valid before                                                       | no such bound     |
| `secret_generation` | which of the device's secrets bought the token; void once that is replaced | never void |

A device's scopes reach its own files and never include `admin`; an operator's reach the tenant's and never include
`upload`. Scopes outside one's role are dropped; a token left with none is refused.
"""

import hashlib
import math
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Protocol

import jwt

from protocol.naming import is_device, is_tenant

TOKEN_CHARS_MAX = 8192
"""Real tokens have some hundred characters; longer text is not worth parsing."""

HEADERS_MAX = 64
"""Headers of good tokens whose keys are remembered: an issuer has one header for each of its keys."""

EXPIRES_S_MAX = 253_402_300_799
"""The end of the year 9999, the last that RFC 3339 can show."""

GENERATION_MAX = 2**63 - 1
"""The catalog's largest integer."""

SUBJECT_CHARS_MAX = 255
"""The longest operator's name in a token."""

_GENERATION = "secret_generation"

_OPERATOR = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{SUBJECT_CHARS_MAX}}}")

# Times are compared here, with the time passed in; PyJWT would ask the system's clock. Names are checked here as well.
_DECODER = jwt.PyJWT(
    {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_sub": False, "verify_jti": False}
)


class Kind(StrEnum):
    """What an identity is; the `role` claim's values."""

    DEVICE = "device"
    OPERATOR = "operator"


class Scope(StrEnum):
    """What an identity may do; the words of the `scope` claim."""

    UPLOAD = "upload"
    READ = "read"
    DELETE = "delete"
    ADMIN = "admin"


SCOPES: Mapping[Kind, frozenset[Scope]] = {
    Kind.DEVICE: frozenset({Scope.UPLOAD, Scope.READ, Scope.DELETE}),
    Kind.OPERATOR: frozenset({Scope.READ, Scope.DELETE, Scope.ADMIN}),
}
"""What a token of each kind can give; a verifier drops the rest."""

SCOPES_DEFAULT: Mapping[Kind, frozenset[Scope]] = {
    Kind.DEVICE: frozenset({Scope.UPLOAD}),
    Kind.OPERATOR: frozenset({Scope.READ}),
}
"""What an issued token gives unless asked: scopes to delete or to administer must be asked for by name."""


class Reason(Enum):
    """Why a token was refused."""

    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    KEY_UNKNOWN = "key_unknown"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    AUDIENCE = "audience"
    ISSUER = "issuer"
    CLAIM_MISSING = "claim_missing"
    CLAIM_INVALID = "claim_invalid"
    SCOPE = "scope"


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified device or operator. `expires_s`: unix seconds at which the authority ends, None for never.

    `secret_generation` is that of the device's secret that bought the token, None where none did. `key` is the
    fingerprint of the key that signed it, which issuing does not need.
    """

    tenant: str
    subject: str
    kind: Kind
    scopes: frozenset[Scope]
    expires_s: int | None
    secret_generation: int | None = None
    key: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Policy:
    """What tokens must claim, and what issued ones do. `cache_size` verified tokens are remembered; 0 for none."""

    issuer: str
    audience: str
    leeway_s: float
    required_claims: tuple[str, ...]
    tenant_default: str
    tenant_claim: str
    cache_size: int


class TokenRefused(Exception):
    """A token was refused. The text says what is wrong and what to do; never the token or its claims' values."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        super().__init__(f"token refused: {detail}")


class Key(Protocol):
    """A key: the only algorithm it serves, its `kid` where it has one, and the key itself."""

    @property
    def algorithm(self) -> str: ...
    @property
    def kid(self) -> str | None: ...
    @property
    def jwk(self) -> jwt.PyJWK: ...
    @property
    def fingerprint(self) -> bytes: ...


class TokenVerifier:
    """Verifies tokens, and remembers those it has verified until they expire, the least recently used going first."""

    __slots__ = ("_candidates", "_keys", "_policy", "_trusted", "_verified")

    def __init__(self, policy: Policy, keys: Sequence[Key]) -> None:
        self.reload(policy, keys)

    def reload(self, policy: Policy, keys: Sequence[Key]) -> None:
        """Verify by `policy` and `keys` from now on; tokens verified before are checked again."""
        self._policy = policy
        self._keys = tuple(keys)
        self._trusted = frozenset(key.fingerprint for key in self._keys)
        self._verified: OrderedDict[bytes, Identity] = OrderedDict()
        self._candidates: dict[str, tuple[Key, ...]] = {}

    def trusts(self, key: bytes) -> bool:
        """Whether the key with this fingerprint still verifies tokens."""
        return key in self._trusted

    def verify(self, token: str, now_ms: int) -> Identity:
        """The identity that `token` gives at `now_ms`, in unix milliseconds. Raises TokenRefused."""
        if len(token) > TOKEN_CHARS_MAX or not token.isascii():
            raise TokenRefused(Reason.MALFORMED, f"it is no JWT of at most {TOKEN_CHARS_MAX} characters; get a new one")
        digest = hashlib.sha256(token.encode()).digest()
        identity = self._verified.pop(digest, None)
        if identity is None:
            claims, key = self._claims(token)
            self._check_start(claims, now_ms)
            identity = self._identity(claims, key)
        self._check_end(identity, now_ms)
        self._remember(digest, identity)
        return identity

    def _remember(self, digest: bytes, identity: Identity) -> None:
        self._verified[digest] = identity
        if len(self._verified) > self._policy.cache_size:
            self._verified.popitem(last=False)

    def _claims(self, token: str) -> tuple[Mapping[str, object], Key]:
        """The claims, and the key that has verified their signature."""
        # Finding the keys takes as long as verifying with them. An issuer's tokens share a header, so do it once.
        header = token.partition(".")[0]
        candidates = self._candidates.get(header) or self._keys_for(token)
        signed = self._signed_by(candidates, token)
        if len(self._candidates) < HEADERS_MAX:
            self._candidates[header] = candidates
        return signed

    def _signed_by(self, candidates: Sequence[Key], token: str) -> tuple[Mapping[str, object], Key]:
        for key in candidates[:-1]:
            try:
                return self._decoded(token, key), key
            except TokenRefused as refused:
                if refused.reason is not Reason.SIGNATURE:
                    raise
        return self._decoded(token, candidates[-1]), candidates[-1]

    def _keys_for(self, token: str) -> tuple[Key, ...]:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, RecursionError) as error:
            raise TokenRefused(Reason.MALFORMED, "it is no JWT; get a new one from its issuer") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        served = tuple(key for key in self._keys if key.algorithm == algorithm)
        if not served:
            accepted = ", ".join(sorted({key.algorithm for key in self._keys}))
            raise TokenRefused(Reason.ALGORITHM, f"its algorithm is not accepted; have it signed with {accepted}")
        # PEM files and the secret have no kid, yet their issuers may write one into tokens.
        nameless = tuple(key for key in served if key.kid is None)
        if kid is None:
            # To try all of a JWKS file would cost a stranger nothing, and the daemon 0.1 ms a key.
            found = nameless or (served if len(served) == 1 else ())
        else:
            found = tuple(key for key in served if key.kid == kid) or nameless
        if not found:
            detail = "it has no kid to choose a key by" if kid is None else "no key has its kid"
            raise TokenRefused(
                Reason.KEY_UNKNOWN, f"{detail}; if its issuer has new keys, update auth.jwks_file and reload"
            )
        return found

    def _decoded(self, token: str, key: Key) -> Mapping[str, object]:
        policy = self._policy
        try:
            claims: Mapping[str, object] = _DECODER.decode(
                token,
                key.jwk,
                algorithms=[key.algorithm],
                options={"require": ["exp", "iss", "aud", "sub", *policy.required_claims]},
                audience=policy.audience,
                issuer=policy.issuer,
            )
        except jwt.InvalidSignatureError as error:
            raise TokenRefused(Reason.SIGNATURE, "its signature fits none of the keys; get a new one") from error
        except jwt.MissingRequiredClaimError as error:
            raise TokenRefused(
                Reason.CLAIM_MISSING, f"it lacks the claim {error.claim}; have its issuer add it"
            ) from error
        except jwt.InvalidAudienceError as error:
            raise TokenRefused(Reason.AUDIENCE, f"it is for another audience than {policy.audience}") from error
        except jwt.InvalidIssuerError as error:
            raise TokenRefused(Reason.ISSUER, f"it is from another issuer than {policy.issuer}") from error
        except (jwt.InvalidTokenError, RecursionError) as error:
            raise TokenRefused(Reason.MALFORMED, "it is no valid JWT; get a new one from its issuer") from error
        return claims

    def _check_start(self, claims: Mapping[str, object], now_ms: int) -> None:
        for name in ("nbf", "iat"):
            if name in claims and _time(claims, name) > now_ms / 1000 + self._policy.leeway_s:
                raise TokenRefused(
                    Reason.NOT_YET_VALID, f"its {name} lies ahead; wait, or set the clocks of issuer and daemon right"
                )

    def _check_end(self, identity: Identity, now_ms: int) -> None:
        if identity.expires_s is not None and now_ms >= (identity.expires_s + self._policy.leeway_s) * 1000:
            raise TokenRefused(Reason.EXPIRED, "it has expired; get a new one")

    def _identity(self, claims: Mapping[str, object], key: Key) -> Identity:
        kind = _kind(claims.get("role", Kind.DEVICE.value))
        tenant_claim = self._policy.tenant_claim
        tenant = _matching(
            claims.get(tenant_claim, self._policy.tenant_default), is_tenant, tenant_claim, "a tenant's name"
        )
        subject = (
            _matching(claims["sub"], is_device, "sub", "a device's name")
            if kind is Kind.DEVICE
            else _matching(claims["sub"], is_operator, "sub", f"1 to {SUBJECT_CHARS_MAX} printable characters")
        )
        # Connections, uploads and tokens each keep the tenant: intern it, so that all devices share one text.
        return Identity(
            sys.intern(tenant),
            subject,
            kind,
            _scopes(claims, kind),
            math.floor(_time(claims, "exp")),
            _generation(claims),
            key.fingerprint,
        )


class TokenIssuer:
    """Issues tokens that a TokenVerifier of the same policy and key accepts."""

    __slots__ = ("_key", "_policy")

    def __init__(self, policy: Policy, key: Key) -> None:
        """`key` signs, so it must be the secret's."""
        self._policy = policy
        self._key = key

    def issue(self, identity: Identity, ttl_s: float, now_ms: int) -> str:
        """A token for `identity`, good for `ttl_s` seconds from `now_ms`, and never beyond `identity`'s end."""
        now_s = now_ms // 1000
        end_s = now_s + math.ceil(ttl_s)
        claims: dict[str, str | int] = {
            "iss": self._policy.issuer,
            "aud": self._policy.audience,
            "sub": identity.subject,
            self._policy.tenant_claim: identity.tenant,
            "role": identity.kind.value,
            "scope": " ".join(sorted(identity.scopes)),
            "iat": now_s,
            "exp": end_s if identity.expires_s is None else min(end_s, identity.expires_s),
        }
        if identity.secret_generation is not None:
            claims[_GENERATION] = identity.secret_generation
        return jwt.encode(claims, self._key.jwk, algorithm=self._key.algorithm)


def is_operator(name: str) -> bool:
    """Whether `name` can be an operator's: 1 to SUBJECT_CHARS_MAX characters, none of them a control character."""
    return _OPERATOR.fullmatch(name) is not None


def _scopes(claims: Mapping[str, object], kind: Kind) -> frozenset[Scope]:
    text = claims.get("scope", Scope.UPLOAD.value if kind is Kind.DEVICE else "")
    if not isinstance(text, str):
        raise _invalid("scope", "words separated by spaces")
    scopes = _parsed_scopes(text, kind)
    if not scopes:
        possible = ", ".join(sorted(SCOPES[kind]))
        raise TokenRefused(Reason.SCOPE, f"it gives no right that a token of role {kind} can have: {possible}")
    return scopes


@lru_cache(maxsize=64)
def _parsed_scopes(text: str, kind: Kind) -> frozenset[Scope]:
    """Remembered, so that the identities of a fleet share one set."""
    words = text.split(" ")
    return frozenset(scope for scope in SCOPES[kind] if scope.value in words)


def _kind(role: object) -> Kind:
    for kind in Kind:
        if role == kind.value:
            return kind
    raise _invalid("role", "device or operator")


def _time(claims: Mapping[str, object], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= EXPIRES_S_MAX:
        raise _invalid(name, "unix seconds")
    return value


def _generation(claims: Mapping[str, object]) -> int | None:
    value = claims.get(_GENERATION)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= GENERATION_MAX:
        raise _invalid(_GENERATION, "the number of a device's secret")
    return value


def _matching(value: object, fits: Callable[[str], bool], name: str, expected: str) -> str:
    if not isinstance(value, str) or not fits(value):
        raise _invalid(name, expected)
    return value


def _invalid(name: str, expected: str) -> TokenRefused:
    return TokenRefused(Reason.CLAIM_INVALID, f"its claim {name} is not {expected}; have its issuer correct it")
