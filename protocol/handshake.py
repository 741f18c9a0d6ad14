"""Checks a HELLO; reads and proves a device's secret. PROTOCOL.md §4."""

import base64
import hashlib
import hmac

from protocol.constants import AGENT_BYTES_MAX, FRAME_BYTES_MIN, MAGIC, VERSION, CredentialKind
from protocol.errors import ErrorCode
from protocol.exceptions import ProtocolError
from protocol.frames import Hello

SECRET_BYTES = 32
"""256 random bits cannot be guessed, so no slow hash is needed."""

_KEY_LABEL = b"uplinkd/1 device key"
_PROOF_LABEL = b"uplinkd/1 proof"


def check_hello(hello: Hello) -> None:
    """Check that this server can talk to the device. Raises ProtocolError with the reason that the device gets."""
    if hello.magic != MAGIC:
        raise ProtocolError(ErrorCode.MAGIC_WRONG, f"HELLO begins with {hello.magic.hex()}, not {MAGIC.hex()}")
    if not hello.version_min <= VERSION <= hello.version_max:
        raise ProtocolError(
            ErrorCode.VERSION_UNSUPPORTED,
            f"versions {hello.version_min} to {hello.version_max}; this server speaks {VERSION}",
        )
    if hello.frame_bytes_max < FRAME_BYTES_MIN:
        raise ProtocolError(
            ErrorCode.FRAME_MALFORMED, f"frame_bytes_max {hello.frame_bytes_max} is below {FRAME_BYTES_MIN}"
        )
    if any(len((text or "").encode()) > AGENT_BYTES_MAX for text in (hello.agent, hello.agent_version)):
        raise ProtocolError(ErrorCode.FRAME_MALFORMED, f"agent and its version: at most {AGENT_BYTES_MAX} bytes each")
    if hello.credential == CredentialKind.TOKEN:
        complete = hello.token is not None
    elif hello.credential == CredentialKind.DEVICE_SECRET:
        complete = hello.device is not None and hello.nonce is not None
    else:
        raise ProtocolError(ErrorCode.CREDENTIAL_UNSUPPORTED, f"credential kind {hello.credential}: use 1 or 2")
    if not complete:
        raise ProtocolError(ErrorCode.FRAME_MALFORMED, "HELLO lacks a field that its credential kind needs")


def read_secret(text: str) -> bytes:
    """The bytes of a secret from its text form, base64url without padding. Ignores surrounding white space.

    PROTOCOL.md §4.3. Raises ValueError, whose text never contains the secret.
    """
    stripped = text.strip()
    try:
        secret = base64.b64decode(stripped + "=" * (-len(stripped) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise ValueError("a device secret is base64url; copy it whole from where it was shown") from error
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a device secret has {SECRET_BYTES} bytes, not {len(secret)}; copy it whole")
    return secret


def device_key(secret: bytes) -> bytes:
    """The key derived from a device's secret. The server keeps only this; it is also all that the device needs."""
    return hmac.digest(secret, _KEY_LABEL, hashlib.sha256)


def prove(key: bytes, hello: bytes, challenge: bytes) -> bytes:
    """The proof over both frames as sent, prefixes included. Compare it in constant time."""
    return hmac.digest(key, _PROOF_LABEL + hello + challenge, hashlib.sha256)
