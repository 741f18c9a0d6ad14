"""Sample requests and records, in which a test sets only the fields that matter to it."""

from dataclasses import replace

from daemon.catalog.interface import Catalog
from daemon.catalog.records import (
    Completion,
    Metadata,
    OpenRequest,
    State,
    Upload,
)
from protocol.constants import Disposition
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
    """UPLOAD in another state."""
    return replace(replace(UPLOAD, state=state), **fields)  # type: ignore[arg-type]  # each value fits the field it names


def first_bytes(count: int) -> tuple[DigestedRange, ...]:
    """The range [0, count)."""
    return (DigestedRange(0, count, 7),)


def completion(upload_id: int, epoch: int = 1, size: int = 100, now_ms: int = 2_000) -> Completion:
    """The completion of an upload of `size` bytes."""
    return Completion(upload_id, epoch, size, 7, b"s" * 32, first_bytes(size), now_ms)


async def create(catalog: Catalog, upload_id: int, name: str = "", **fields: object) -> Upload:
    """Open a new upload. Its name defaults to one made from its id."""
    request = replace(REQUEST, upload_id=upload_id, name=name or f"file-{upload_id}")
    opened = await catalog.open(replace(request, **fields))  # type: ignore[arg-type]  # each value fits the field it names
    assert opened.upload is not None
    return opened.upload


async def bring_to(catalog: Catalog, upload_id: int, state: State, now_ms: int = 2_000) -> Upload:
    """Bring a receiving upload of REQUEST's size to `state`."""
    if state is State.COMPLETE:
        completed = await catalog.complete(completion(upload_id, now_ms=now_ms))
        assert completed is not None
    elif state is State.PARTIAL:
        assert await catalog.park(upload_id, now_ms) is not None
    elif state is not State.RECEIVING:
        assert await catalog.end(upload_id, state, now_ms) is not None
    return await known(catalog, upload_id)


async def known(catalog: Catalog, upload_id: int) -> Upload:
    """The upload, which must be known."""
    found = await catalog.get(upload_id)
    assert found is not None
    return found
