"""Rules for names, tags and metadata. PROTOCOL.md §4 and §6."""

import re
import unicodedata

from protocol.constants import METADATA_BYTES_MAX, NAME_BYTES_MAX, OFFSET_MAX, SIZE_UNKNOWN, TAG_BYTES_MAX
from protocol.errors import ErrorCode
from protocol.frames import Open

TENANT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""A tenant's name. It needs no escaping in a path segment, a URL or a metric's label."""

DEVICE_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
"""A device's name. Unlike a tenant's, it may hold colons, since EUI-64 and MAC addresses do."""

_TENANT = re.compile(TENANT_PATTERN)
_DEVICE = re.compile(DEVICE_PATTERN)


def is_tenant(name: str) -> bool:
    """Whether `name` is valid for a tenant: 1 to 64 of A-Z a-z 0-9 . _ - and a letter or digit first."""
    return _TENANT.fullmatch(name) is not None


def is_device(name: str) -> bool:
    """Whether `name` is valid for a device: 1 to 128 of A-Z a-z 0-9 . _ : - and a letter or digit first."""
    return _DEVICE.fullmatch(name) is not None


def is_text(text: str) -> bool:
    """Whether `text` is UTF-8 without control characters (category Cc). Surrogates stand for invalid UTF-8."""
    return not any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


def is_name(name: str) -> bool:
    """Whether `name` is 1 to 255 bytes of UTF-8, without control characters and without `..` between slashes.

    The server never uses a name as a path, but a program that downloads files may: no name leads out of its directory.
    """
    return is_text(name) and 1 <= len(name.encode()) <= NAME_BYTES_MAX and ".." not in name.split("/")


def check_open(request: Open) -> tuple[ErrorCode, str] | None:
    """Why an OPEN is invalid, before its name is looked up: the error's code and text. None when it is valid."""
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
