"""Randomness as the daemon uses it: identifiers and secrets that must not be guessed, and jitter."""

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """What a consumer may ask of chance."""

    def bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes, fit for secrets, nonces and identifiers."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high] for jitter; need not be unpredictable."""
        ...


class SystemEntropy:
    """The machine's randomness."""

    __slots__ = ()

    def bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - jitter, not a secret
