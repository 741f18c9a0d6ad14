"""What a HELLO must be, and how a device's secret is proven. PROTOCOL.md §4."""

import hashlib
import hmac

from protocol.constants import AGENT_BYTES_MAX, FRAME_BYTES_MIN, MAGIC, VERSION, CredentialKind
from protocol.errors import ErrorCode
from protocol.exceptions import ProtocolError
from protocol.frames import Hello

_KEY_LABEL = b"uplinkd/1 device key"
_PROOF_LABEL = b"uplinkd/1 proof"


def check_hello(hello: Hello) -> None:
    """Whether this server can go on with the device. Raises ProtocolError with what it is told."""
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
        raise ProtocolError(ErrorCode.FRAME_MALFORMED, "HELLO lacks a field that its kind of credential needs")


def device_key(secret: bytes) -> bytes:
    """The key derived from a device's secret: all that the server keeps, and all that the device needs to keep."""
    return hmac.digest(secret, _KEY_LABEL, hashlib.sha256)


def prove(key: bytes, hello: bytes, challenge: bytes) -> bytes:
    """The proof for these two frames as sent, prefix included. Compare in constant time."""
    return hmac.digest(key, _PROOF_LABEL + hello + challenge, hashlib.sha256)
