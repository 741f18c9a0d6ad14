"""The tables of the settings file: every key with its default and bounds.

The annotated example beside the unit file explains each key to operators; a test keeps the two alike.
"""

import ipaddress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from protocol.constants import CHUNK_OVERHEAD_BYTES, OFFSET_MAX
from protocol.naming import TENANT_PATTERN

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
HOUR_S = 3600
DAY_S = 24 * HOUR_S
YEAR_S = 366 * DAY_S


def _list(value: object) -> object:
    """In the environment and in flags, commas separate a list; TOML has lists of its own."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _network(value: object) -> object:
    return ipaddress.ip_network(value) if isinstance(value, str) else value


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=255)], ...], BeforeValidator(_list)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_list)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_list)]
Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
Algorithms = Annotated[tuple[Algorithm, ...], BeforeValidator(_list)]


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Listen(Section):
    """Where devices connect. Unset `tls_certificate` and `tls_key` mean plain TCP."""

    host: str = Field("127.0.0.1", min_length=1, max_length=255)
    port: int = Field(7710, ge=0, le=65535)
    backlog: int = Field(1024, ge=1, le=65535)
    proxy_trusted: Networks = ()
    proxy_protocol: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tcp_user_timeout_s: float = Field(60, ge=0, le=DAY_S)
    tcp_keepalive_s: float = Field(60, ge=0, le=9 * HOUR_S)

    @field_validator("proxy_protocol")
    @classmethod
    def _trusts_somebody(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("proxy_trusted") == ():
            raise ValueError("needs listen.proxy_trusted, the networks whose PROXY headers are believed")
        return value

    @field_validator("tls_key")
    @classmethod
    def _pair(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("tls_certificate")
        if (value is None) != (certificate is None):
            raise ValueError("set both listen.tls_certificate and listen.tls_key, or neither")
        return value


class Limits(Section):
    """What one device, and all of them together, may take."""

    connections_max: int = Field(10_000, ge=1, le=1_000_000)
    connections_per_ip_max: int = Field(0, ge=0, le=1_000_000)
    handshake_timeout_s: float = Field(10, gt=0, le=300)
    idle_timeout_s: float = Field(180, gt=0, le=DAY_S)
    keepalive_s: float = Field(60, ge=1, le=HOUR_S)
    rate_min_bytes_per_s: int = Field(64, ge=0, le=MIB)
    rate_window_s: float = Field(30, gt=0, le=HOUR_S)
    streams_max: int = Field(32, ge=1, le=4096)
    ranges_max: int = Field(64, ge=1, le=4096)
    chunk_bytes_max: int = Field(MIB, ge=KIB, le=16 * MIB)
    window_bytes: int = Field(16 * MIB, ge=KIB, le=GIB)
    receive_pool_bytes: int = Field(128 * MIB, ge=64 * KIB, le=64 * GIB)
    outgoing_bytes_max: int = Field(256 * KIB, ge=16 * KIB, le=64 * MIB)
    handshakes_max: int = Field(1000, ge=1, le=1_000_000)
    connections_per_device_max: int = Field(64, ge=0, le=1_000_000)
    connections_per_tenant_max: int = Field(0, ge=0, le=1_000_000)

    @field_validator("keepalive_s")
    @classmethod
    def _before_idle(cls, value: float, info: ValidationInfo) -> float:
        idle_timeout_s = info.data.get("idle_timeout_s")
        if idle_timeout_s is not None and 2 * value > idle_timeout_s:
            raise ValueError(
                f"must be at most half of limits.idle_timeout_s = {idle_timeout_s:g}, or quiet devices are cut as idle"
            )
        return value

    @field_validator("window_bytes", "receive_pool_bytes")
    @classmethod
    def _holds_a_chunk(cls, value: int, info: ValidationInfo) -> int:
        chunk_bytes_max = info.data.get("chunk_bytes_max")
        overhead_bytes = CHUNK_OVERHEAD_BYTES if info.field_name == "window_bytes" else 0
        if chunk_bytes_max is not None and value < chunk_bytes_max + overhead_bytes:
            raise ValueError(
                f"must be at least {chunk_bytes_max + overhead_bytes}, or limits.chunk_bytes_max never fits"
            )
        return value


class Commit(Section):
    """When received bytes are made durable and acknowledged."""

    durability: Literal["sync", "write"] = "sync"
    cycle_bytes: int = Field(16 * MIB, ge=4 * KIB, le=GIB)
    cycle_ms: float = Field(5.0, ge=0, le=1000)


class StorageSettings(Section):
    """How much of the disk uploads may take."""

    disk_free_min_bytes: int = Field(256 * MIB, ge=0, le=OFFSET_MAX)
    quota_bytes_per_device: int = Field(0, ge=0, le=OFFSET_MAX)
    size_max_bytes: int = Field(0, ge=0, le=OFFSET_MAX)
    uploads_max_per_device: int = Field(1_000_000, ge=0, le=OFFSET_MAX)
    uploads_per_hour_per_device: int = Field(36_000, ge=0, le=OFFSET_MAX)


class CleanupSettings(Section):
    """What is removed, and when."""

    interval_s: float = Field(300, gt=0, le=DAY_S)
    jitter: float = Field(0.1, ge=0, le=1)
    stale_s: float = Field(7 * DAY_S, gt=0, le=10 * YEAR_S)
    stale_action: Literal["delete", "keep"] = "delete"
    retention_s: float = Field(0, ge=0, le=100 * YEAR_S)
    rejected_s: float = Field(DAY_S, gt=0, le=10 * YEAR_S)
    tombstone_s: float = Field(7 * DAY_S, gt=0, le=10 * YEAR_S)
    max_fraction: float = Field(0.5, gt=0, le=1)
    clock_skew_max_s: float = Field(60, gt=0, le=DAY_S)


class Auth(Section):
    """Which tokens are accepted, and for how long."""

    issuer: str = Field("uplinkd", min_length=1, max_length=255)
    audience: str = Field("uplinkd", min_length=1, max_length=255)
    algorithms: Algorithms = ()
    secret_file: Path | None = None
    public_keys: Paths = ()
    jwks_file: Path | None = None
    leeway_s: float = Field(30, ge=0, le=300)
    required_claims: Names = ()
    token_ttl_s: float = Field(HOUR_S, ge=1, le=YEAR_S)
    token_cache: int = Field(10_000, ge=0, le=1_000_000)
    revocation_s: float = Field(30, gt=0, le=HOUR_S)
    grace_s: float = Field(30, ge=0, le=HOUR_S)
    tenant_default: str = Field("default", pattern=rf"\A{TENANT_PATTERN}\z")
    tenant_claim: str = Field("tenant", min_length=1, max_length=255)


class Http(Section):
    """The control plane for operators."""

    host: str = Field("127.0.0.1", min_length=1, max_length=255)
    port: int = Field(7780, ge=0, le=65535)
    metrics_public: bool = True
    download_concurrency: int = Field(64, ge=1, le=10_000)
    content_delivery: Literal["direct", "accel"] = "direct"
    accel_prefix: str = Field("/files/", pattern=r"\A/(?:[A-Za-z0-9._~-]+/)+\z", max_length=255)
    connections_max: int = Field(256, ge=1, le=100_000)
    connections_per_ip_max: int = Field(0, ge=0, le=100_000)
    rate_min_bytes_per_s: int = Field(1024, ge=0, le=MIB)
    rate_window_s: float = Field(60, gt=0, le=HOUR_S)


class Log(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Drain(Section):
    """How the daemon says goodbye."""

    timeout_s: float = Field(20, gt=0, le=HOUR_S)
    reconnect_ms_min: int = Field(1000, ge=0, le=HOUR_S * 1000)
    reconnect_ms_max: int = Field(30_000, ge=0, le=HOUR_S * 1000)

    @field_validator("reconnect_ms_max")
    @classmethod
    def _ordered(cls, value: int, info: ValidationInfo) -> int:
        reconnect_ms_min = info.data.get("reconnect_ms_min")
        if reconnect_ms_min is not None and value < reconnect_ms_min:
            raise ValueError(f"must be at least drain.reconnect_ms_min = {reconnect_ms_min}")
        return value
