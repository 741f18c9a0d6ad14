"""The secrets that devices prove themselves by: made, read, and compared with the key that is kept of each.

PROTOCOL.md §4.3.
"""

import base64
import hmac

from daemon.adapters.entropy import Entropy
from protocol.handshake import device_key

SECRET_BYTES = 32
"""256 bits, machine-made: nothing to guess, so no slow hash is needed."""


def make_secret(entropy: Entropy) -> str:
    """A new device secret: SECRET_BYTES as base64url without padding, to be shown once."""
    return base64.urlsafe_b64encode(entropy.bytes(SECRET_BYTES)).rstrip(b"=").decode()


def read_secret(text: str) -> bytes:
    """The bytes of a secret as `make_secret` writes it. Raises ValueError when it is not one."""
    try:
        secret = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise ValueError("a device secret is base64url; copy it whole from where it was shown") from error
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a device secret has {SECRET_BYTES} bytes, not {len(secret)}; copy it whole")
    return secret


def derive_key(secret: bytes) -> bytes:
    """What the daemon keeps of a device's secret (of its bytes, not their text): 32 bytes (PROTOCOL.md, handshake)."""
    return device_key(secret)


def verify_secret(key: bytes, secret: str) -> bool:
    """Whether `secret`, as text, is the one that `key` was derived from.

    The comparison takes the same time wherever the two differ.
    """
    try:
        candidate = derive_key(read_secret(secret))
    except ValueError:
        return False
    return hmac.compare_digest(candidate, key)
