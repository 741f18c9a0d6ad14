"""When an upload expires: the one answer that cleanup, the wire and HTTP give. PROTOCOL.md §8.2."""

from dataclasses import dataclass

from daemon.catalog.records import State, Upload
from daemon.sections import CleanupSettings


@dataclass(frozen=True, slots=True)
class ExpiryPolicy:
    """How long uploads are kept after their last update (`Upload.updated_ms`), in seconds.

    `keeps_stale`: a stale upload becomes partial and stays. `retention_s` 0 keeps complete files for ever.
    """

    stale_s: float
    keeps_stale: bool
    retention_s: float
    rejected_s: float


def expiry_policy(settings: CleanupSettings) -> ExpiryPolicy:
    """How long an operator wants uploads kept."""
    return ExpiryPolicy(settings.stale_s, settings.stale_action == "keep", settings.retention_s, settings.rejected_s)


def lifetime_s(policy: ExpiryPolicy, state: State) -> float | None:
    """How long after its last update an upload in `state` expires; None: never, or its bytes are gone already."""
    if state in {State.RECEIVING, State.PARTIAL}:
        return None if policy.keeps_stale else policy.stale_s
    if state is State.COMPLETE:
        return policy.retention_s or None
    return policy.rejected_s if state is State.REJECTED else None


def expires_ms(policy: ExpiryPolicy, upload: Upload) -> int | None:
    """When the upload expires if nothing updates it before; None as in `lifetime_s`."""
    lifetime = lifetime_s(policy, upload.state)
    return None if lifetime is None else upload.updated_ms + _ms(lifetime)


def expired_before_ms(policy: ExpiryPolicy, state: State, now_ms: int) -> int | None:
    """Uploads in `state` that were last updated before this time have expired; None: none ever does."""
    lifetime = lifetime_s(policy, state)
    return None if lifetime is None else _updated_before_ms(lifetime, now_ms)


def parked_before_ms(policy: ExpiryPolicy, now_ms: int) -> int | None:
    """Receiving uploads that were last updated before this time become partial; None: they expire instead."""
    return _updated_before_ms(policy.stale_s, now_ms) if policy.keeps_stale else None


def _updated_before_ms(lifetime: float, now_ms: int) -> int:
    # One more: what expires at this very moment has expired.
    return now_ms - _ms(lifetime) + 1


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
