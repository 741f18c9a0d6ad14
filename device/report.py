"""What callers say of an upload and learn from it."""

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

    `sent_bytes` crossed the link, `resent_bytes` of them more often than once. `resumes` counts how often the upload
    went on with what the server already had. `crc32c` and `sha256` are those of the whole file as the server knows
    them; None where it did not tell.
    """

    upload_id: int
    name: str
    size: int
    crc32c: int | None
    sha256: bytes | None
    resumes: int
    sent_bytes: int
    resent_bytes: int
