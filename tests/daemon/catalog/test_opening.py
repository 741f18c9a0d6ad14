"""Each row of the opening table, and what turns an outcome into a refusal."""

from dataclasses import replace

import pytest

from daemon.catalog.opening import TABLE, Standing, content_changed, decide
from daemon.catalog.records import End, EndReason, Metadata, Outcome, State, Upload, Usage
from protocol.constants import Disposition
from tests.support.catalog_samples import (
    REPLACE,
    REQUEST,
    RESUME_ONLY,
    RESUME_OR_CREATE,
    first_bytes,
    upload,
)

OPENED = replace(REQUEST, upload_id=2, now_ms=5_000, tombstone_after_ms=1_000)
FORGOTTEN_MS = 999


def used(held_bytes: int, uploads: int = 0) -> Usage:
    return Usage(held_bytes, uploads)


def test_the_table_answers_every_standing_and_disposition() -> None:
    assert set(TABLE) == {(standing, disposition) for standing in Standing for disposition in Disposition}


@pytest.mark.parametrize(
    ("known", "disposition", "outcome", "previous"),
    [
        (None, RESUME_OR_CREATE, Outcome.CREATED, None),
        (None, RESUME_ONLY, Outcome.NOT_FOUND, None),
        (None, REPLACE, Outcome.CREATED, None),
        *[
            (upload(ended), disposition, outcome, ended)
            for ended in (State.REJECTED, State.ABORTED, State.EXPIRED)
            for disposition, outcome in (
                (RESUME_OR_CREATE, Outcome.CREATED),
                (RESUME_ONLY, Outcome.NOT_FOUND),
                (REPLACE, Outcome.CREATED),
            )
        ],
        (upload(State.DELETED), RESUME_OR_CREATE, Outcome.GONE, State.DELETED),
        (upload(State.DELETED), RESUME_ONLY, Outcome.GONE, State.DELETED),
        (upload(State.DELETED), REPLACE, Outcome.CREATED, State.DELETED),
        *[
            (upload(live), disposition, outcome, previous)
            for live in (State.RECEIVING, State.PARTIAL)
            for disposition, outcome, previous in (
                (RESUME_OR_CREATE, Outcome.RESUMED, None),
                (RESUME_ONLY, Outcome.RESUMED, None),
                (REPLACE, Outcome.CREATED, State.ABORTED),
            )
        ],
        (upload(State.COMPLETE), RESUME_OR_CREATE, Outcome.COMPLETE, None),
        (upload(State.COMPLETE), RESUME_ONLY, Outcome.COMPLETE, None),
        (upload(State.COMPLETE), REPLACE, Outcome.CREATED, State.COMPLETE),
    ],
)
def test_an_open_comes_to(
    known: Upload | None, disposition: Disposition, outcome: Outcome, previous: State | None
) -> None:
    decision = decide(replace(OPENED, disposition=disposition), known, used(0))
    assert (decision.outcome, decision.previous) == (outcome, previous)


@pytest.mark.parametrize("ended", [State.ABORTED, State.DELETED, State.EXPIRED])
def test_a_forgotten_tombstone_is_as_none(ended: State) -> None:
    known = upload(ended, created_ms=FORGOTTEN_MS, updated_ms=FORGOTTEN_MS)
    created = decide(OPENED, known, used(0))
    assert (created.outcome, created.previous) == (Outcome.CREATED, None)
    assert decide(replace(OPENED, disposition=RESUME_ONLY), known, used(0)).previous is None


def test_a_rejected_upload_is_no_tombstone_and_stays_known() -> None:
    known = upload(State.REJECTED, created_ms=FORGOTTEN_MS, updated_ms=FORGOTTEN_MS)
    assert decide(OPENED, known, used(0)).previous is State.REJECTED


def test_a_replacement_aborts_an_open_upload_and_supersedes_a_complete_one() -> None:
    request = replace(OPENED, disposition=REPLACE)
    aborting = decide(request, upload(), used(0))
    end = End(1, State.RECEIVING, State.ABORTED, OPENED.now_ms, EndReason.REPLACED)
    assert (aborting.replaced, aborting.supersede_id) == (end, None)
    superseding = decide(request, upload(State.COMPLETE), used(0))
    assert (superseding.replaced, superseding.supersede_id) == (None, 1)


def test_a_new_upload_begins_after_the_last_end_though_the_clock_was_set_back() -> None:
    created = decide(replace(OPENED, now_ms=10), upload(State.ABORTED, updated_ms=3_000), used(0)).upload
    assert created is not None
    assert (created.created_ms, created.updated_ms) == (3_001, 3_001)


def test_a_resume_bumps_the_epoch_and_learns_what_was_unknown() -> None:
    known = upload(State.PARTIAL, size=None, epoch=4, ranges=first_bytes(30))
    metadata = Metadata("text/plain", "x-1", "a.txt")
    request = replace(OPENED, size=50, crc32c_expected=9, sha256_expected=b"d" * 32, metadata=metadata)
    assert decide(request, known, used(0)).upload == replace(
        known,
        state=State.RECEIVING,
        epoch=5,
        size=50,
        crc32c_expected=9,
        sha256_expected=b"d" * 32,
        metadata=metadata,
        updated_ms=5_000,
    )


def test_a_resume_keeps_what_was_known() -> None:
    known = upload(size=50, crc32c_expected=9, sha256_expected=b"d" * 32, metadata=Metadata(external_id="x-1"))
    resumed = decide(replace(OPENED, size=None, metadata=Metadata(external_id="x-2")), known, used(0)).upload
    assert resumed == replace(known, epoch=2, updated_ms=5_000)


@pytest.mark.parametrize(
    ("known", "asked", "changed"),
    [
        ({"size": 100}, {"size": 100}, False),
        ({"size": 100}, {"size": 101}, True),
        ({"size": None}, {"size": 100}, False),
        ({"size": 100}, {"size": None}, False),
        ({"size": None, "ranges": first_bytes(30)}, {"size": 30}, False),
        ({"size": None, "ranges": first_bytes(30)}, {"size": 29}, True),
        ({"tag": b"a"}, {"tag": b"a"}, False),
        ({"tag": b"a"}, {"tag": b"b"}, True),
        ({"tag": b""}, {"tag": b"b"}, True),
        ({"tag": b"a"}, {"tag": b""}, True),
        ({"crc32c_expected": 1}, {"crc32c_expected": 1}, False),
        ({"crc32c_expected": 1}, {"crc32c_expected": 2}, True),
        ({"crc32c_expected": None}, {"crc32c_expected": 2}, False),
        ({"crc32c": 1, "crc32c_expected": None}, {"crc32c_expected": 2}, True),
        ({"sha256_expected": b"a" * 32}, {"sha256_expected": b"b" * 32}, True),
        ({"sha256": b"a" * 32}, {"sha256_expected": b"a" * 32}, False),
        ({"sha256": b"a" * 32}, {"sha256_expected": None}, False),
    ],
)
def test_content_is_another_when_tag_size_or_digest_say_so(
    known: dict[str, object], asked: dict[str, object], changed: bool
) -> None:
    request = replace(OPENED, **asked)  # type: ignore[arg-type]  # each value fits the field it names
    assert content_changed(request, upload(State.RECEIVING, **known)) is changed
    for live, same in ((State.RECEIVING, Outcome.RESUMED), (State.COMPLETE, Outcome.COMPLETE)):
        standing = upload(live, **known)
        expected = Outcome.CONTENT_CHANGED if changed else same
        assert decide(request, standing, used(0)).outcome is expected


@pytest.mark.parametrize(
    ("size", "used_bytes", "outcome"),
    [
        (100, 900, Outcome.CREATED),
        (100, 901, Outcome.QUOTA_EXCEEDED),
        (0, 1_000, Outcome.CREATED),
        (None, 999, Outcome.CREATED),
        (None, 1_000, Outcome.QUOTA_EXCEEDED),
    ],
)
def test_a_new_upload_must_fit_the_quota(size: int | None, used_bytes: int, outcome: Outcome) -> None:
    assert decide(replace(OPENED, size=size, quota_bytes=1_000), None, used(used_bytes)).outcome is outcome


def test_a_replacement_may_use_what_the_aborted_upload_gives_back_but_not_what_a_complete_one_holds() -> None:
    request = replace(OPENED, disposition=REPLACE, quota_bytes=1_000)
    assert decide(request, upload(), used(1_000)).outcome is Outcome.CREATED
    refused = decide(request, upload(State.COMPLETE), used(1_000))
    assert (refused.outcome, refused.upload) == (Outcome.QUOTA_EXCEEDED, upload(State.COMPLETE))


def test_a_resume_counts_only_what_it_adds() -> None:
    request = replace(OPENED, quota_bytes=1_000)
    assert decide(request, upload(), used(2_000)).outcome is Outcome.RESUMED
    unknown = upload(size=None, ranges=first_bytes(30))
    assert decide(request, unknown, used(930)).outcome is Outcome.RESUMED
    assert decide(request, unknown, used(931)).outcome is Outcome.QUOTA_EXCEEDED


@pytest.mark.parametrize(("uploads", "outcome"), [(9, Outcome.CREATED), (10, Outcome.QUOTA_EXCEEDED)])
def test_a_new_upload_must_be_one_of_those_allowed(uploads: int, outcome: Outcome) -> None:
    request = replace(OPENED, uploads_max=10)
    assert decide(request, None, used(0, uploads)).outcome is outcome
    assert decide(replace(request, disposition=REPLACE), upload(State.COMPLETE), used(0, uploads)).outcome is outcome
    assert decide(request, upload(), used(0, 10)).outcome is Outcome.RESUMED
