"""Between frames and records: what is absent on one side is absent on the other."""

from dataclasses import replace

import pytest

from daemon.catalog.expiry import ExpiryPolicy
from daemon.catalog.records import Metadata, OpenRequest, State, Upload
from daemon.ingest.live_upload import LiveUpload
from daemon.tcp.translation import open_request, opened, opened_complete, status, wire_size
from protocol import frames
from protocol.constants import NEVER_S, SIZE_UNKNOWN, Disposition, UploadState
from protocol.ranges import DigestedRange, Span

NOW_MS = 1_000_000
EXPIRY = ExpiryPolicy(stale_s=100, keeps_stale=False, retention_s=0, rejected_s=50)

RECORD = Upload(
    id=7,
    tenant="acme",
    device="pump-7",
    name="log",
    state=State.RECEIVING,
    epoch=1,
    size=None,
    tag=b"",
    ranges=(DigestedRange(0, 10, 1), DigestedRange(20, 30, 2), DigestedRange(40, 50, 3)),
    crc32c=None,
    sha256=None,
    crc32c_expected=None,
    sha256_expected=None,
    metadata=Metadata(),
    created_ms=NOW_MS,
    updated_ms=NOW_MS,
    completed_ms=None,
)
COMPLETE = replace(RECORD, state=State.COMPLETE, size=50, crc32c=5, sha256=b"d" * 32)


def test_an_open_that_says_little() -> None:
    request = frames.Open(Disposition.RESUME_ONLY, SIZE_UNKNOWN, "log")
    assert open_request("acme", "pump-7", request) == OpenRequest(
        1, "acme", "pump-7", "log", Disposition.RESUME_ONLY, 0
    )


def test_an_open_that_says_all() -> None:
    request = frames.Open(Disposition.REPLACE, 50, "log", b"tag", b"d" * 32, 5, "text/plain", "42", "log.txt")
    asked = open_request("acme", "pump-7", request)
    assert (asked.disposition, asked.size, asked.tag) == (Disposition.REPLACE, 50, b"tag")
    assert (asked.crc32c_expected, asked.sha256_expected) == (5, b"d" * 32)
    assert asked.metadata == Metadata("text/plain", "42", "log.txt")


def test_opened_has_no_more_ranges_than_the_device_asked_for() -> None:
    upload = LiveUpload(RECORD)
    answer = opened(upload, State.EXPIRED, 100, 1)
    assert (answer.next_expected_byte, answer.previous, answer.expires_s) == (10, UploadState.EXPIRED, 100)
    assert answer.ranges == (Span(20, 30),)
    assert opened(upload, None, 100, 0).ranges is None


def test_a_complete_files_status_has_its_digests() -> None:
    answer = opened_complete(COMPLETE, EXPIRY, NOW_MS)
    assert (answer.state, answer.next_expected_byte, answer.expires_s) == (UploadState.COMPLETE, 50, NEVER_S)
    assert (answer.crc32c, answer.sha256) == (5, b"d" * 32)


@pytest.mark.parametrize(("passed_s", "left_s"), [(0, 100), (30, 70), (200, 0)])
def test_a_status_tells_what_is_left_of_the_time(passed_s: int, left_s: int) -> None:
    answer = status(RECORD, EXPIRY, NOW_MS + passed_s * 1000, 8)
    assert (answer.state, answer.expires_s, answer.size) == (UploadState.RECEIVING, left_s, SIZE_UNKNOWN)
    assert (answer.crc32c, answer.sha256) == (None, None)


def test_a_partial_upload_is_reported_as_receiving_since_it_may_be_resumed() -> None:
    assert status(replace(RECORD, state=State.PARTIAL), EXPIRY, NOW_MS, 8).state is UploadState.RECEIVING


@pytest.mark.parametrize(("ranges_max", "ranges"), [(8, (Span(20, 30), Span(40, 50))), (1, (Span(20, 30),)), (0, None)])
def test_a_status_has_the_ranges_beyond_n_up_to_those_the_device_asked_for(
    ranges_max: int, ranges: tuple[Span, ...] | None
) -> None:
    answer = status(RECORD, EXPIRY, NOW_MS, ranges_max)
    assert (answer.next_expected_byte, answer.ranges) == (10, ranges)


def test_without_the_first_byte_every_range_is_beyond_n() -> None:
    record = replace(RECORD, ranges=RECORD.ranges[1:])
    answer = status(record, EXPIRY, NOW_MS, 8)
    assert (answer.next_expected_byte, answer.ranges) == (0, (Span(20, 30), Span(40, 50)))


def test_the_status_of_a_complete_file() -> None:
    answer = status(COMPLETE, EXPIRY, NOW_MS, 8)
    assert (answer.state, answer.expires_s, answer.crc32c) == (UploadState.COMPLETE, NEVER_S, 5)
    assert wire_size(COMPLETE) == 50


@pytest.mark.parametrize(
    ("state", "policy", "left_s"),
    [
        (State.REJECTED, EXPIRY, 20),
        (State.COMPLETE, replace(EXPIRY, retention_s=70), 40),
        (State.RECEIVING, replace(EXPIRY, keeps_stale=True), NEVER_S),
        (State.EXPIRED, EXPIRY, 0),
    ],
)
def test_a_status_tells_when_its_state_expires(state: State, policy: ExpiryPolicy, left_s: int) -> None:
    assert status(replace(COMPLETE, state=state), policy, NOW_MS + 30_000, 8).expires_s == left_s


def test_the_status_of_nothing() -> None:
    assert status(None, EXPIRY, NOW_MS, 8) == frames.Status(0, UploadState.NONE, 0)
