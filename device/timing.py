"""Time as the library sees it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """`clock` gives monotonic seconds. `handshake_timeout_s` is the limit from HELLO to WELCOME."""

    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    handshake_timeout_s: float
