"""Device secrets: made when a device is enrolled, and compared with the key that the daemon keeps of each.

PROTOCOL.md §4.3.
"""

import base64
import hmac

from daemon.adapters.entropy import Entropy
from protocol.handshake import SECRET_BYTES, device_key, read_secret


def make_secret(entropy: Entropy) -> str:
    """A new device secret: SECRET_BYTES as base64url without padding, to be shown once."""
    return base64.urlsafe_b64encode(entropy.bytes(SECRET_BYTES)).rstrip(b"=").decode()


def verify_secret(key: bytes, secret: str) -> bool:
    """Whether `secret`, as text, is the one that `key` was derived from.

    The comparison takes the same time wherever the two differ.
    """
    try:
        candidate = device_key(read_secret(secret))
    except ValueError:
        return False
    return hmac.compare_digest(candidate, key)
