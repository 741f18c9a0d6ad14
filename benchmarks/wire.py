"""The frames before and after a device's chunks, made beforehand so that no sender spends time on them."""

from protocol import codec, frames
from protocol.constants import CredentialKind, Disposition, Feature

FEATURES = Feature.CHUNK_COMPACT | Feature.CHUNK_CRC32C | Feature.SHA256

FRAME_BYTES_MAX = 4096
"""What a small device accepts. Every answer here is far smaller."""


def hello(token: str) -> bytes:
    """HELLO with a token; OPEN may follow at once (PROTOCOL.md, handshake)."""
    return codec.encode(frames.Hello(CredentialKind.TOKEN, FEATURES, FRAME_BYTES_MAX, token=token))


def opening(name: str, size: int, stream: int = 1, sha256: bytes | None = None) -> bytes:
    """An OPEN that resumes or creates the upload."""
    return codec.encode(frames.Open(Disposition.RESUME_OR_CREATE, size, name, sha256=sha256), stream)


def finish(size: int, stream: int = 1, sha256: bytes | None = None) -> bytes:
    return codec.encode(frames.Finish(size, sha256=sha256), stream)
