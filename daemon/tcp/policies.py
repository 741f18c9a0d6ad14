"""Settings as the policies of connections and of a drain, and as a TLS context."""

import ssl
from dataclasses import replace
from pathlib import Path

from daemon.catalog.expiry import expiry_policy
from daemon.process.descriptors import Budget
from daemon.settings import Settings
from daemon.tcp.handshake import SessionPolicy
from daemon.tcp.listener import DrainPolicy, ServerPolicy
from daemon.tcp.places import PlaceLimits
from protocol.constants import ALPN, Durability, Feature
from protocol.server import ServerLimits
from protocol.timers import TimerSettings

FEATURES = Feature.CHUNK_COMPACT | Feature.CHUNK_CRC32C | Feature.SHA256


def server_policy(settings: Settings) -> ServerPolicy:
    """What connections may take, and what WELCOME says of it."""
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
            expiry=expiry_policy(settings.cleanup),
            tenant_default=settings.auth.tenant_default,
        ),
        places=PlaceLimits(
            connections_max=limits.connections_max,
            connections_per_ip_max=limits.connections_per_ip_max,
            connections_per_tenant_max=limits.connections_per_tenant_max,
            connections_per_device_max=limits.connections_per_device_max,
        ),
        handshakes_max=limits.handshakes_max,
        outgoing_bytes_max=limits.outgoing_bytes_max,
        handshake_timeout_s=limits.handshake_timeout_s,
        proxy_trusted=settings.listen.proxy_trusted if settings.listen.proxy_protocol else (),
    )


def within(policy: ServerPolicy, budget: Budget) -> ServerPolicy:
    """The policy with no more connections than there are file descriptors for."""
    places = replace(policy.places, connections_max=budget.connections)
    return replace(policy, places=places, handshakes_max=budget.handshakes)


def drain_policy(settings: Settings, share: float = 1.0) -> DrainPolicy:
    """How the daemon drains its connections, in this share of the drain's limit."""
    drain = settings.drain
    return DrainPolicy(drain.timeout_s * share, drain.reconnect_ms_min, drain.reconnect_ms_max)


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
    """Let the context use this certificate for handshakes from now on. Raises OSError, which names the files."""
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except OSError as error:
        raise OSError(f"the certificate {certificate} cannot be used with the key {key}: {error}") from error


def _no_password() -> str:
    # Without this OpenSSL would ask for the password of an encrypted key on the terminal, and wait.
    raise OSError("listen.tls_key is encrypted: store it without a password, readable by the daemon alone")
