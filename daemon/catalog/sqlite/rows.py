"""Uploads as rows of SQLite, and back. `migrations/` declares the columns."""

import struct
from collections.abc import Mapping
from typing import TypeAlias

from daemon.catalog.records import Metadata, State, Upload
from protocol.ranges import DigestedRange

CODES: Mapping[State, int] = {state: code for code, state in enumerate(State)}
"""States as stored; the migrations' partial indexes use the numbers, so the order of State must not change."""

STATES = tuple(State)

COLUMNS = (
    "id, tenant, device, name, state, epoch, size, tag, ranges, crc32c, sha256, crc32c_expected, "
    "sha256_expected, content_type, external_id, original_name, created_ms, updated_ms, completed_ms"
)

Row: TypeAlias = tuple[
    int, str, str, str, int, int, int | None, bytes, bytes, int | None, bytes | None, int | None,
    bytes | None, str, str, str, int, int, int | None,
]  # fmt: skip
"""COLUMNS as SQLite returns them."""

_RANGE = struct.Struct(">QQI")


def pack_ranges(ranges: tuple[DigestedRange, ...]) -> bytes:
    """Big-endian, 20 bytes a range: start u64, end (exclusive) u64, CRC32C u32. Raises struct.error."""
    if len(ranges) == 1:
        only = ranges[0]
        return _RANGE.pack(only.start, only.end, only.crc32c)
    return b"".join([_RANGE.pack(each.start, each.end, each.crc32c) for each in ranges])


def unpack_ranges(packed: bytes) -> tuple[DigestedRange, ...]:
    """The inverse of `pack_ranges`. Raises struct.error."""
    return tuple([DigestedRange(*each) for each in _RANGE.iter_unpack(packed)])


def to_row(upload: Upload) -> Row:
    """The upload as values for COLUMNS."""
    return (
        upload.id,
        upload.tenant,
        upload.device,
        upload.name,
        CODES[upload.state],
        upload.epoch,
        upload.size,
        upload.tag,
        pack_ranges(upload.ranges),
        upload.crc32c,
        upload.sha256,
        upload.crc32c_expected,
        upload.sha256_expected,
        upload.metadata.content_type,
        upload.metadata.external_id,
        upload.metadata.original_name,
        upload.created_ms,
        upload.updated_ms,
        upload.completed_ms,
    )


def to_upload(row: Row) -> Upload:
    """The upload that a row of COLUMNS holds."""
    (
        upload_id, tenant, device, name, state, epoch, size, tag, ranges, crc32c, sha256, crc32c_expected,
        sha256_expected, content_type, external_id, original_name, created_ms, updated_ms, completed_ms,
    ) = row  # fmt: skip
    return Upload(
        upload_id, tenant, device, name, STATES[state], epoch, size, tag, unpack_ranges(ranges),
        crc32c, sha256, crc32c_expected, sha256_expected, Metadata(content_type, external_id, original_name),
        created_ms, updated_ms, completed_ms,
    )  # fmt: skip
