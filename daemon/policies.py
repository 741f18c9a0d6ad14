"""Settings as the policies of the rooms that obey them."""

import ssl
from pathlib import Path

from daemon.identity.tokens import Policy
from daemon.ingest.admission import UploadPolicy
from daemon.ingest.committer import CycleSettings
from daemon.settings import Settings
from daemon.tcp.listener import DrainPolicy, ServerPolicy
from daemon.tcp.session import SessionPolicy
from daemon.upkeep.cleanup import CleanupPolicy
from protocol.constants import ALPN, Durability, Feature
from protocol.server import ServerLimits
from protocol.timers import TimerSettings

FEATURES = Feature.CHUNK_COMPACT | Feature.CHUNK_CRC32C | Feature.SHA256


def auth_policy(settings: Settings) -> Policy:
    """Whose tokens are believed."""
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


def cycle_settings(settings: Settings) -> CycleSettings:
    """When a commit cycle is cut."""
    return CycleSettings(settings.commit.cycle_bytes, settings.commit.cycle_ms / 1000)


def upload_policy(settings: Settings) -> UploadPolicy:
    """What uploads may take."""
    return UploadPolicy(
        ranges_max=settings.limits.ranges_max,
        quota_bytes_per_device=settings.storage.quota_bytes_per_device,
        size_max_bytes=settings.storage.size_max_bytes,
        disk_free_min_bytes=settings.storage.disk_free_min_bytes,
        tombstone_s=settings.cleanup.tombstone_s,
    )


def server_policy(settings: Settings) -> ServerPolicy:
    """What connections may take, and what devices are told."""
    limits = settings.limits
    durability = Durability.SYNC if settings.commit.durability == "sync" else Durability.WRITE
    return ServerPolicy(
        limits=ServerLimits(
            chunk_bytes_max=limits.chunk_bytes_max,
            window_bytes=limits.window_bytes,
            streams_max=limits.streams_max,
            features=FEATURES,
            timers=TimerSettings(
                handshake_timeout_s=limits.handshake_timeout_s,
                keepalive_s=limits.keepalive_s,
                idle_timeout_s=limits.idle_timeout_s,
                rate_min_bytes_per_s=limits.rate_min_bytes_per_s,
                rate_window_s=limits.rate_window_s,
            ),
        ),
        session=SessionPolicy(
            durability=durability,
            features=FEATURES,
            ranges_max=limits.ranges_max,
            streams_max=limits.streams_max,
            keepalive_s=limits.keepalive_s,
            chunk_bytes_max=limits.chunk_bytes_max,
            window_bytes=limits.window_bytes,
            grace_s=settings.auth.grace_s,
            stale_s=settings.cleanup.stale_s,
            tenant_default=settings.auth.tenant_default,
        ),
        connections_max=limits.connections_max,
        connections_per_ip_max=limits.connections_per_ip_max,
        outgoing_bytes_max=limits.outgoing_bytes_max,
        handshake_timeout_s=limits.handshake_timeout_s,
        proxy_trusted=settings.listen.proxy_trusted if settings.listen.proxy_protocol else (),
    )


def cleanup_policy(settings: Settings) -> CleanupPolicy:
    """What is removed, and when."""
    cleanup = settings.cleanup
    return CleanupPolicy(
        interval_s=cleanup.interval_s,
        jitter=cleanup.jitter,
        stale_s=cleanup.stale_s,
        keeps_stale=cleanup.stale_action == "keep",
        retention_s=cleanup.retention_s,
        rejected_s=cleanup.rejected_s,
        tombstone_s=cleanup.tombstone_s,
        max_fraction=cleanup.max_fraction,
        clock_skew_max_s=cleanup.clock_skew_max_s,
    )


def drain_policy(settings: Settings) -> DrainPolicy:
    """How the daemon says goodbye."""
    drain = settings.drain
    return DrainPolicy(drain.timeout_s, drain.reconnect_ms_min, drain.reconnect_ms_max)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS as the settings have it, None for plain TCP. Raises OSError and ssl.SSLError."""
    certificate, key = settings.listen.tls_certificate, settings.listen.tls_key
    if certificate is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Let the context use this certificate for handshakes from now on. Raises OSError and ssl.SSLError."""
    context.load_cert_chain(certificate, key, password=_no_password)


def _no_password() -> str:
    # Without this OpenSSL would ask for the password of an encrypted key on the terminal, and wait.
    raise ssl.SSLError("listen.tls_key is encrypted: store it without a password, readable by the daemon alone")
