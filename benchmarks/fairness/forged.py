"""Strangers with forged tokens, against a daemon that trusts many keys."""

import base64
import json
import random
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks import wire
from benchmarks.fairness.crowd import Manner
from benchmarks.fairness.loads import Load, crowded
from benchmarks.fairness.stage import Stage

KEYS = 63
"""With the daemon's own, as many as it takes."""

RSA_BITS = 2048

FORGED = 2000
"""More than are used, so that no two are alike."""

SEED = 20_260_101


def trusted_keys(directory: Path) -> Mapping[str, str]:
    """Settings that trust KEYS public keys. Nobody has a private key: a random modulus costs a check as much."""
    numbers = random.Random(SEED)  # noqa: S311 - no secret
    keys = [
        {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": f"key-{number}", "e": "AQAB", "n": _text(_modulus(numbers))}
        for number in range(KEYS)
    ]
    path = directory / "jwks.json"
    path.write_text(json.dumps({"keys": keys}))
    return {"AUTH__JWKS_FILE": str(path)}


def forged_tokens(connections: int, again_s: float) -> Load:
    """HELLOs with tokens that name no key and carry a wrong signature."""

    def load(stage: Stage) -> AbstractContextManager[None]:
        numbers = random.Random(SEED)  # noqa: S311 - no secret
        hellos = [wire.hello(_forged(number, numbers.randbytes(RSA_BITS // 8))) for number in range(FORGED)]
        count = stage.some(connections)
        return crowded(stage, Manner(stage.daemon.port, count, lambda serial: hellos[serial % FORGED], again_s=again_s))

    return load


def _modulus(numbers: random.Random) -> bytes:
    return (numbers.getrandbits(RSA_BITS) | 1 << (RSA_BITS - 1) | 1).to_bytes(RSA_BITS // 8, "big")


def _forged(number: int, signature: bytes) -> str:
    claims = {"iss": "uplinkd", "aud": "uplinkd", "sub": f"stranger-{number}", "exp": 4_000_000_000}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join([*map(_text, parts), _text(signature)])


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
