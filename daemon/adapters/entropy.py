"""Randomness: identifiers and secrets that must be unpredictable, and jitter."""

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """The randomness that the daemon uses."""

    def bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes, fit for secrets, nonces and identifiers."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high] for jitter; it may be predictable."""
        ...


class SystemEntropy:
    """The system's source of randomness."""

    __slots__ = ()

    def bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - jitter, not a secret
