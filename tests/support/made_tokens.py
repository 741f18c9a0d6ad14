"""Hand-made tokens, keys to verify them, and the verifier's refusals."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from daemon.identity.tokens import (
    Policy,
    TokenRefused,
    TokenVerifier,
)

NOW_S = 1_700_000_000
NOW_MS = NOW_S * 1000
SECRET = bytes(range(32))
POLICY = Policy(
    issuer="uplinkd",
    audience="uplinkd",
    leeway_s=30,
    required_claims=(),
    tenant_default="default",
    tenant_claim="tenant",
    cache_size=100,
)
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
CLAIMS = {"iss": "uplinkd", "aud": "uplinkd", "sub": "device-1", "exp": NOW_S + 600}
Json = dict[str, object]


@dataclass(frozen=True)
class StoredKey:
    algorithm: str
    jwk: jwt.PyJWK
    kid: str | None = None

    @property
    def fingerprint(self) -> bytes:
        """Different for each key."""
        material = json.dumps(self.jwk._jwk_data, sort_keys=True)
        return hashlib.sha256(material.encode()).digest()


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def symmetric(secret: bytes = SECRET) -> StoredKey:
    return StoredKey("HS256", jwt.PyJWK({"kty": "oct", "k": encoded(secret)}, "HS256"))


def public(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, kid: str | None = None
) -> StoredKey:
    if isinstance(key, rsa.RSAPrivateKey):
        return StoredKey("RS256", jwt.PyJWK(RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "RS256"), kid)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return StoredKey("ES256", jwt.PyJWK(ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "ES256"), kid)
    return StoredKey("EdDSA", jwt.PyJWK(OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "EdDSA"), kid)


def token(claims: Json | None = None, header: Json | None = None, secret: bytes = SECRET) -> str:
    """A token signed with HS256 by hand, so that no library corrects it. A claim of `...` is left out."""
    kept = {name: value for name, value in {**CLAIMS, **(claims or {})}.items() if value is not ...}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", **(header or {})}, kept))
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"


def refused(verifier: TokenVerifier, text: str, now_ms: int = NOW_MS) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        verifier.verify(text, now_ms)
    for part in text.split("."):
        assert len(part) < 10 or part not in str(caught.value)
    return caught.value


def watched(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[str]:
    """Record the tokens that the function `name` gets from now on."""
    seen: list[str] = []
    whole: Callable[..., object] = getattr(owner, name)

    def watch(*given: object, **named: object) -> object:
        seen.extend(each for each in given if isinstance(each, str))
        return whole(*given, **named)

    monkeypatch.setattr(owner, name, watch)
    return seen
