"""Requests and records with what a test does not care about filled in."""

import sqlite3
from dataclasses import replace

from daemon.catalog.records import (
    Completion,
    Disposition,
    Metadata,
    OpenRequest,
    State,
    Upload,
)
from daemon.catalog.sqlite import changes, schema
from protocol.ranges import DigestedRange

TENANT, DEVICE, NAME = "default", "pump-7", "log/1.bin"

RESUME_OR_CREATE, RESUME_ONLY, REPLACE = Disposition

REQUEST = OpenRequest(
    upload_id=1, tenant=TENANT, device=DEVICE, name=NAME, disposition=RESUME_OR_CREATE, now_ms=1_000, size=100
)

UPLOAD = Upload(
    id=1,
    tenant=TENANT,
    device=DEVICE,
    name=NAME,
    state=State.RECEIVING,
    is_current=True,
    epoch=1,
    size=100,
    tag=b"",
    ranges=(),
    crc32c=None,
    sha256=None,
    crc32c_expected=None,
    sha256_expected=None,
    metadata=Metadata(),
    created_ms=1_000,
    updated_ms=1_000,
    completed_ms=None,
)


def upload(state: State = State.RECEIVING, **fields: object) -> Upload:
    """UPLOAD in another state, current where the state may be."""
    current = state in {State.RECEIVING, State.PARTIAL, State.COMPLETE}
    return replace(replace(UPLOAD, state=state, is_current=current), **fields)  # type: ignore[arg-type]  # each value fits the field it names


def first_bytes(count: int) -> tuple[DigestedRange, ...]:
    """The range [0, count)."""
    return (DigestedRange(0, count, 7),)


def completion(upload_id: int, epoch: int = 1, size: int = 100, now_ms: int = 2_000) -> Completion:
    """All `size` bytes of an upload."""
    return Completion(upload_id, epoch, size, 7, b"s" * 32, first_bytes(size), now_ms)


def memory_catalog() -> sqlite3.Connection:
    """A connection to a catalog that is nowhere."""
    # The garbage collector may close it, on whichever thread it runs.
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for migration in schema.load():
        connection.executescript(migration.sql)
    return connection


def create(connection: sqlite3.Connection, upload_id: int, name: str = "", **fields: object) -> Upload:
    """Open a new upload; its name is made of its id unless it is given."""
    request = replace(REQUEST, upload_id=upload_id, name=name or f"file-{upload_id}")
    opened = changes.open_upload(connection, replace(request, **fields)).upload  # type: ignore[arg-type]  # each value fits the field it names
    assert opened is not None
    return opened
