"""WELCOME frames: the usual one, and those with other limits or fewer features."""

from dataclasses import replace

from protocol import frames
from protocol.constants import AUTHORITY_UNLIMITED_S, Durability, Feature

ALL_FEATURES = Feature.CHUNK_COMPACT | Feature.CHUNK_CRC32C | Feature.SHA256

WELCOME = frames.Welcome(
    version=1,
    durability=Durability.SYNC,
    ranges_max=32,
    streams_max=16,
    keepalive_s=20,
    features=ALL_FEATURES,
    chunk_bytes_max=256 * 1024,
    window_bytes=1024 * 1024,
    authority_s=AUTHORITY_UNLIMITED_S,
    server_time_ms=0,
    connection_id=7,
)


def replaced(
    *,
    window_bytes: int = WELCOME.window_bytes,
    chunk_bytes_max: int = WELCOME.chunk_bytes_max,
    streams_max: int = WELCOME.streams_max,
    authority_s: int = WELCOME.authority_s,
) -> frames.Welcome:
    """The WELCOME of a server with other limits."""
    return replace(
        WELCOME,
        window_bytes=window_bytes,
        chunk_bytes_max=chunk_bytes_max,
        streams_max=streams_max,
        authority_s=authority_s,
    )


def without(*features: Feature) -> frames.Welcome:
    """The WELCOME of a server without these features."""
    left = ALL_FEATURES
    for feature in features:
        left &= ~feature
    return replace(WELCOME, features=left)
