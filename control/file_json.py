"""A file as JSON. PROTOCOL.md's terms, with times in RFC 3339 and ids in 16 hexadecimal digits."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from daemon.catalog.records import Upload

Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None
"""What `json.dumps` takes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def file_status(file: Upload, expires_ms: int | None) -> dict[str, Json]:
    """The status of one file; `ranges` are [start, end) with `end` exclusive, null is unknown or not yet."""
    return {
        "id": f"{file.id:016x}",
        "device": file.device,
        "name": file.name,
        "state": file.state.value,
        "size": file.size,
        "next_expected_byte": file.next_expected_byte,
        "ranges": [{"start": each.start, "end": each.end} for each in file.ranges],
        "created": timestamp(file.created_ms),
        "updated": timestamp(file.updated_ms),
        "completed": None if file.completed_ms is None else timestamp(file.completed_ms),
        "expires": None if expires_ms is None else timestamp(expires_ms),
        "digests": {
            "crc32c": None if file.crc32c is None else f"{file.crc32c:08x}",
            "sha256": None if file.sha256 is None else file.sha256.hex(),
        },
        "metadata": {
            "content_type": file.metadata.content_type or None,
            "external_id": file.metadata.external_id or None,
            "original_name": file.metadata.original_name or None,
        },
    }


def timestamp(unix_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, as `2026-01-31T12:00:00.000Z`."""
    moment = _EPOCH + timedelta(milliseconds=unix_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
