"""Translates settings into the policies of the core's parts."""

from daemon.catalog.expiry import expiry_policy
from daemon.identity.tokens import Policy
from daemon.ingest.admission import UploadPolicy
from daemon.ingest.committer import CycleSettings
from daemon.process.descriptors import Budget, Demand, divide
from daemon.settings import Settings
from daemon.upkeep.cleanup_pass import CleanupPolicy


def auth_policy(settings: Settings) -> Policy:
    """Which tokens are accepted."""
    auth = settings.auth
    return Policy(
        issuer=auth.issuer,
        audience=auth.audience,
        leeway_s=auth.leeway_s,
        required_claims=auth.required_claims,
        tenant_default=auth.tenant_default,
        tenant_claim=auth.tenant_claim,
        cache_size=auth.token_cache,
    )


def descriptor_budget(settings: Settings, limit: int) -> Budget:
    """Who may take how many of `limit` file descriptors."""
    limits = settings.limits
    http = settings.http
    demand = Demand(limits.connections_max, limits.handshakes_max, http.connections_max, http.download_concurrency)
    return divide(limit, demand)


def cycle_settings(settings: Settings) -> CycleSettings:
    """When a commit cycle is cut."""
    return CycleSettings(settings.commit.cycle_bytes, settings.commit.cycle_ms / 1000)


def upload_policy(settings: Settings) -> UploadPolicy:
    """The limits on uploads."""
    return UploadPolicy(
        ranges_max=settings.limits.ranges_max,
        quota_bytes_per_device=settings.storage.quota_bytes_per_device,
        uploads_max_per_device=settings.storage.uploads_max_per_device,
        uploads_per_hour_per_device=settings.storage.uploads_per_hour_per_device,
        size_max_bytes=settings.storage.size_max_bytes,
        disk_free_min_bytes=settings.storage.disk_free_min_bytes,
        tombstone_s=settings.cleanup.tombstone_s,
    )


def cleanup_policy(settings: Settings) -> CleanupPolicy:
    """What is removed, and when."""
    cleanup = settings.cleanup
    return CleanupPolicy(
        interval_s=cleanup.interval_s,
        jitter=cleanup.jitter,
        expiry=expiry_policy(cleanup),
        tombstone_s=cleanup.tombstone_s,
        max_fraction=cleanup.max_fraction,
        clock_skew_max_s=cleanup.clock_skew_max_s,
    )
