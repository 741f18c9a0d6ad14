"""What callers give and get with an upload."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """What is kept with the file; at most 1 KiB of UTF-8 in all. PROTOCOL.md §6."""

    content_type: str | None = None
    external_id: str | None = None
    original_name: str | None = None


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far an upload is: `durable_bytes` of `size` are acknowledged; `resumes` and `sent_bytes` as in Sent."""

    name: str
    size: int
    durable_bytes: int
    resumes: int
    sent_bytes: int


ProgressListener = Callable[[UploadProgress], None]


@dataclass(frozen=True, slots=True)
class Sent:
    """A complete, verified and durable file.

    `sent_bytes` crossed the link, `resent_bytes` of them more than once. `resumes` counts how often the upload resumed
    from bytes that the server already had. `crc32c` and `sha256` are the server's digests of the whole file; None if
    it gave none.
    """

    upload_id: int
    name: str
    size: int
    crc32c: int | None
    sha256: bytes | None
    resumes: int
    sent_bytes: int
    resent_bytes: int
