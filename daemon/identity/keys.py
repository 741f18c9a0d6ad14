"""Keys that verify tokens: loaded from files, each bound to the one algorithm it may serve.

A key that could be misused is refused when it is loaded.
"""

import base64
import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from daemon.adapters.entropy import Entropy

SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the 256 bits of its hash."""

RSA_BITS_MIN = 2048
"""RFC 7518, section 3.3."""

KEYS_MAX = 64
"""A token is tried against every key of its algorithm that has no `kid`, so their number bounds what forging costs."""

_SYMMETRIC = "HS256"
_FOREIGN_BITS = stat.S_IWGRP | stat.S_IRWXO


class KeysInvalid(Exception):
    """A key file cannot be used. The text names the file, what is wrong, and what to do; never a key."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One key, the only algorithm it verifies, and its `kid` where it has one.

    `fingerprint` is the same for the same key, whatever file and `kid` it comes with.
    """

    algorithm: str
    kid: str | None
    jwk: jwt.PyJWK
    fingerprint: bytes = field(repr=False)


def load_keys(
    secret: bytes, public_keys: Sequence[Path], jwks_file: Path | None, algorithms: Collection[str]
) -> tuple[VerificationKey, ...]:
    """All keys: the secret's, the PEM files' and the JWKS file's; of `algorithms` alone, when any are named.

    Raises KeysInvalid for a file that cannot be read or holds what must not be trusted, for a named algorithm that
    no key serves, and for more than KEYS_MAX keys.
    """
    keys = [symmetric_key(secret), *(_from_pem(path) for path in public_keys)]
    if jwks_file is not None:
        keys += _from_jwks(jwks_file)
    if len(keys) > KEYS_MAX:
        raise KeysInvalid(f"{len(keys)} keys are configured, {KEYS_MAX} is the most; remove those no longer used")
    missing = sorted(set(algorithms) - {key.algorithm for key in keys})
    if missing:
        raise KeysInvalid(
            f"auth.algorithms names {', '.join(missing)}, which no key serves; "
            "add the key to auth.public_keys or auth.jwks_file, or remove the algorithm"
        )
    return tuple(key for key in keys if not algorithms or key.algorithm in algorithms)


def symmetric_key(secret: bytes) -> VerificationKey:
    """The HS256 key made of `secret`. Raises KeysInvalid when it is shorter than SECRET_BYTES."""
    if len(secret) < SECRET_BYTES:
        raise KeysInvalid(f"an HS256 secret has {len(secret)} bytes; use at least {SECRET_BYTES} random ones")
    jwk = jwt.PyJWK({"kty": "oct", "k": _encoded(secret)}, _SYMMETRIC)
    return VerificationKey(_SYMMETRIC, None, jwk, hashlib.sha256(secret).digest())


def ensure_secret_file(path: Path, entropy: Entropy) -> bytes:
    """The secret in `path` (base64url, at least SECRET_BYTES). Makes one where there is none, with mode 0600, whole and
    durable before it gets its name, so that neither two daemons nor a power cut leave half a secret.

    Raises KeysInvalid when it cannot be made or read, is short, or others than its owner may read or its group write.
    """
    try:
        if not path.exists():
            _create_secret(path, entropy)
        return _read_secret(path)
    except OSError as error:
        raise KeysInvalid(
            f"secret file {path} cannot be made or read: {error.strerror}; check its directory and owner"
        ) from error


def _create_secret(path: Path, entropy: Entropy) -> None:
    fresh = path.with_name(f"{path.name}.{entropy.bytes(8).hex()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_encoded(entropy.bytes(SECRET_BYTES)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            # Another process was faster; its secret is as good, and may be in use already.
            return
    finally:
        fresh.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read_secret(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _FOREIGN_BITS:
            raise KeysInvalid(
                f"secret file {path} has mode {mode:04o}, so others may have read or changed it; "
                "remove it to have a new one made (issued tokens end), or run chmod 600 if nobody can have seen it"
            )
        text = file.read().strip()
    try:
        secret = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise KeysInvalid(
            f"secret file {path} is not base64url; write at least {SECRET_BYTES} random bytes in it, "
            "or remove it to have a new one made"
        ) from error
    if len(secret) < SECRET_BYTES:
        raise KeysInvalid(
            f"secret file {path} holds {len(secret)} bytes, at least {SECRET_BYTES} are needed; "
            "remove it to have a new one made"
        )
    return secret


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeysInvalid(f"key file {path} cannot be read: {error.strerror}; check its path and mode") from error


def _from_pem(path: Path) -> VerificationKey:
    content = _read(path)
    if b"PRIVATE KEY" in content:
        raise KeysInvalid(f"key file {path} holds a private key; store its public part alone: openssl pkey -pubout")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeysInvalid(f"key file {path} is no public key in PEM; write one with: openssl pkey -pubout") from error
    match key:
        case RSAPublicKey():
            return _bound(RSAAlgorithm.to_jwk(key, as_dict=True), str(path))
        case EllipticCurvePublicKey(curve=SECP256R1()):
            return _bound(ECAlgorithm.to_jwk(key, as_dict=True), str(path))
        case Ed25519PublicKey():
            return _bound(OKPAlgorithm.to_jwk(key, as_dict=True), str(path))
        case _:
            raise KeysInvalid(f"key file {path} holds a key of another kind; use RSA, EC P-256 or Ed25519")


def _from_jwks(path: Path) -> list[VerificationKey]:
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise KeysInvalid(f"JWKS file {path} is not JSON; write a JWK Set (RFC 7517)") from error
    entries = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KeysInvalid(f'JWKS file {path} has no list "keys" of objects; write a JWK Set (RFC 7517)')
    keys = [
        _bound(entry, f"{path}, key {entry.get('kid', position)!r}")
        for position, entry in enumerate(entries)
        if _for_us(entry, str(path))
    ]
    if not keys:
        raise KeysInvalid(f"JWKS file {path} holds no key for RS256, ES256 or EdDSA signatures; add one")
    return keys


def _for_us(entry: Mapping[str, object], origin: str) -> bool:
    """Whether a JWK can verify tokens; RFC 7517, section 5, lets others be ignored."""
    if entry.get("kty") == "oct" or "d" in entry:
        raise KeysInvalid(f"JWKS file {origin} holds a secret or private key; put public keys alone into it")
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and _algorithm(entry) is not None
    )


def _algorithm(entry: Mapping[str, object]) -> str | None:
    """The one algorithm for a key of this kind, unless the key says it is for another."""
    match entry.get("kty"), entry.get("crv"):
        case "RSA", _:
            algorithm = "RS256"
        case "EC", "P-256":
            algorithm = "ES256"
        case "OKP", "Ed25519":
            algorithm = "EdDSA"
        case _:
            return None
    return algorithm if entry.get("alg", algorithm) == algorithm else None


def _bound(entry: Mapping[str, object], origin: str) -> VerificationKey:
    algorithm, kid = _algorithm(entry), entry.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise KeysInvalid(f'{origin}: "kid" is not text; correct the file')
    try:
        jwk = jwt.PyJWK(dict(entry), algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise KeysInvalid(f"{origin}: the key is damaged; fetch it from its issuer again") from error
    if isinstance(jwk.key, RSAPublicKey) and jwk.key.key_size < RSA_BITS_MIN:
        raise KeysInvalid(f"{origin}: RSA of {jwk.key.key_size} bits can be forged; use {RSA_BITS_MIN} or more")
    material = jwk.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return VerificationKey(jwk.algorithm_name, kid, jwk, hashlib.sha256(material).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
