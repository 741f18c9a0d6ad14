"""Between the wire's frames and the catalog's records. PROTOCOL.md §5 and §6."""

from daemon.catalog.expiry import ExpiryPolicy, expires_ms
from daemon.catalog.records import TOMBSTONES, Metadata, OpenRequest, State, Upload
from daemon.ingest.live_upload import LiveUpload
from protocol import frames
from protocol.constants import NEVER_S, OFFSET_MAX, SIZE_UNKNOWN, Disposition, UploadState
from protocol.ranges import Span

# A device need not know that its stale upload is kept as partial: it resumes it like any other.
_STATES = {None: UploadState.NONE, State.PARTIAL: UploadState.RECEIVING} | {
    state: UploadState[state.name] for state in State if state is not State.PARTIAL
}


def open_request(tenant: str, device: str, request: frames.Open) -> OpenRequest:
    """An OPEN for the catalog. The caller fills in the upload's id, the time and the quota."""
    return OpenRequest(
        upload_id=1,
        tenant=tenant,
        device=device,
        name=request.name,
        disposition=Disposition(request.disposition),
        now_ms=0,
        size=None if request.size > OFFSET_MAX else request.size,
        tag=request.tag or b"",
        crc32c_expected=request.crc32c,
        sha256_expected=request.sha256,
        metadata=Metadata(request.content_type or "", request.external_id or "", request.original_name or ""),
    )


def wire_size(record: Upload) -> int:
    """The upload's size, SIZE_UNKNOWN where it is not declared."""
    return SIZE_UNKNOWN if record.size is None else record.size


def expires_s(record: Upload, policy: ExpiryPolicy, now_ms: int) -> int:
    """Seconds from `now_ms` until the upload expires, NEVER_S if it does not, 0 if its bytes are gone."""
    if record.state in TOMBSTONES:
        return 0
    at_ms = expires_ms(policy, record)
    return NEVER_S if at_ms is None else max((at_ms - now_ms) // 1000, 0)


def opened_complete(record: Upload, policy: ExpiryPolicy, now_ms: int) -> frames.Opened:
    """The answer to an OPEN of a file that is complete."""
    return frames.Opened(
        record.id,
        UploadState.COMPLETE,
        UploadState.NONE,
        record.size or 0,
        expires_s(record, policy, now_ms),
        crc32c=record.crc32c,
        sha256=record.sha256,
    )


def opened(upload: LiveUpload, previous: State | None, expires_s: int, ranges_max: int) -> frames.Opened:
    """The answer to an OPEN that may go on: at most `ranges_max` ranges beyond N, as the device asked."""
    return frames.Opened(
        upload.id,
        UploadState.RECEIVING,
        _STATES[previous],
        upload.next_expected_byte,
        expires_s,
        ranges=tuple(upload.beyond()[:ranges_max]) or None,
    )


def status(record: Upload | None, policy: ExpiryPolicy, now_ms: int, ranges_max: int) -> frames.Status:
    """The answer to a QUERY: at most `ranges_max` ranges beyond N. `record` is None where the name is not known."""
    if record is None:
        return frames.Status(0, UploadState.NONE, 0)
    is_complete = record.state is State.COMPLETE
    return frames.Status(
        upload_id=record.id,
        state=_STATES[record.state],
        next_expected_byte=record.next_expected_byte,
        size=wire_size(record),
        expires_s=expires_s(record, policy, now_ms),
        crc32c=record.crc32c if is_complete else None,
        ranges=None if is_complete else tuple(_beyond(record)[:ranges_max]) or None,
        sha256=record.sha256 if is_complete else None,
    )


def _beyond(record: Upload) -> list[Span]:
    return [Span(each.start, each.end) for each in record.ranges if each.start > 0]
