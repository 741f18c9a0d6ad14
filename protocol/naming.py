"""What names, tags and metadata may be. PROTOCOL.md §4 and §6."""

import re
import unicodedata

from protocol.constants import METADATA_BYTES_MAX, NAME_BYTES_MAX, OFFSET_MAX, SIZE_UNKNOWN, TAG_BYTES_MAX
from protocol.errors import ErrorCode
from protocol.frames import Open

TENANT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""A tenant's name: one part of a path, of an URL and of a metric's label without escaping."""

DEVICE_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
"""A device's name: as a tenant's, with room for colons, as in EUI-64 and MAC addresses."""

_TENANT = re.compile(TENANT_PATTERN)
_DEVICE = re.compile(DEVICE_PATTERN)


def is_tenant(name: str) -> bool:
    """Whether `name` is a tenant's: 1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit."""
    return _TENANT.fullmatch(name) is not None


def is_device(name: str) -> bool:
    """Whether `name` is a device's: 1 to 128 of A-Z a-z 0-9 . _ : - that begin with a letter or digit."""
    return _DEVICE.fullmatch(name) is not None


def is_text(text: str) -> bool:
    """Whether `text` is UTF-8 without control characters (general category Cc; surrogates stand for bad UTF-8)."""
    return not any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


def is_name(name: str) -> bool:
    """Whether `name` is 1 to 255 bytes of UTF-8 without control characters, none of its parts between slashes `..`.

    The server never uses a name as a path; who downloads to a disk may, and must not be led out of a directory.
    """
    return is_text(name) and 1 <= len(name.encode()) <= NAME_BYTES_MAX and ".." not in name.split("/")


def check_open(request: Open) -> tuple[ErrorCode, str] | None:
    """Why an OPEN cannot be, whatever is known of its name; None when it can."""
    if not is_name(request.name):
        return (
            ErrorCode.NAME_INVALID,
            "name: use 1 to 255 bytes of UTF-8, no control characters, no part '..' between slashes",
        )
    if OFFSET_MAX < request.size < SIZE_UNKNOWN:
        return ErrorCode.SIZE_INVALID, f"size {request.size} is above 2^63-1"
    if request.tag is not None and len(request.tag) > TAG_BYTES_MAX:
        return ErrorCode.METADATA_INVALID, f"tag has {len(request.tag)} bytes, {TAG_BYTES_MAX} are allowed"
    texts = [text or "" for text in (request.content_type, request.external_id, request.original_name)]
    if not all(map(is_text, texts)):
        return ErrorCode.METADATA_INVALID, "metadata: use UTF-8 without control characters"
    if (size := sum(len(text.encode()) for text in texts)) > METADATA_BYTES_MAX:
        return ErrorCode.METADATA_INVALID, f"metadata has {size} bytes, {METADATA_BYTES_MAX} are allowed"
    return None
