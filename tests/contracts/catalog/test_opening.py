"""What an OPEN creates, resumes, replaces and refuses. test_opening.py of daemon/catalog has every row of the table."""

import asyncio
from dataclasses import replace

import pytest

from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import End, EndReason, Metadata, Outcome, State
from tests.support.catalog_samples import (
    DEVICE,
    NAME,
    REPLACE,
    REQUEST,
    RESUME_ONLY,
    TENANT,
    bring_to,
    completion,
    create,
    known,
)

REPLACEMENT = replace(REQUEST, upload_id=2, size=30, disposition=REPLACE)


async def test_a_created_upload_is_what_was_asked_for(catalog: Catalog) -> None:
    metadata = Metadata("a/b", "x", "n")
    request = replace(REQUEST, tag=b"t", crc32c_expected=1, sha256_expected=b"s" * 32, metadata=metadata)
    opened = await catalog.open(request)
    assert (opened.outcome, opened.previous, opened.replaced) == (Outcome.CREATED, None, None)
    upload = await known(catalog, 1)
    assert opened.upload == upload
    assert (upload.state, upload.epoch, upload.size, upload.tag) == (State.RECEIVING, 1, 100, b"t")
    assert (upload.crc32c_expected, upload.sha256_expected, upload.metadata) == (1, b"s" * 32, metadata)
    assert (upload.created_ms, upload.updated_ms, upload.completed_ms) == (1_000, 1_000, None)
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 100


@pytest.mark.parametrize("state", [State.RECEIVING, State.PARTIAL])
async def test_a_resumed_upload_has_the_next_epoch_and_learns_what_was_unknown(catalog: Catalog, state: State) -> None:
    await create(catalog, 1, NAME, size=None)
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 0
    await bring_to(catalog, 1, state)
    resumed = await catalog.open(replace(REQUEST, upload_id=2, now_ms=3_000, sha256_expected=b"s" * 32))
    assert (resumed.outcome, resumed.previous) == (Outcome.RESUMED, None)
    upload = await known(catalog, 1)
    assert resumed.upload == upload
    assert (upload.epoch, upload.state, upload.size, upload.updated_ms) == (2, State.RECEIVING, 100, 3_000)
    assert upload.sha256_expected == b"s" * 32
    assert await catalog.get(2) is None
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 100


async def test_the_first_digest_binds_and_another_is_other_content(catalog: Catalog) -> None:
    await catalog.open(REQUEST)
    bound = await catalog.open(replace(REQUEST, sha256_expected=b"a" * 32, crc32c_expected=7))
    assert bound.outcome is Outcome.RESUMED
    for other in ({"sha256_expected": b"b" * 32}, {"crc32c_expected": 8}):
        refused = await catalog.open(replace(REQUEST, **other))
        assert (refused.outcome, refused.upload) == (Outcome.CONTENT_CHANGED, bound.upload)
    assert (await catalog.open(REQUEST)).outcome is Outcome.RESUMED
    assert (await known(catalog, 1)).sha256_expected == b"a" * 32


async def test_a_refused_open_changes_nothing(catalog: Catalog) -> None:
    before = await create(catalog, 1, NAME)
    assert (await catalog.open(replace(REQUEST, tag=b"new"))).outcome is Outcome.CONTENT_CHANGED
    over = replace(REQUEST, upload_id=2, name="other", quota_bytes=150)
    assert (await catalog.open(over)).outcome is Outcome.QUOTA_EXCEEDED
    absent = replace(REQUEST, upload_id=2, name="other", disposition=RESUME_ONLY)
    assert (await catalog.open(absent)).outcome is Outcome.NOT_FOUND
    assert await catalog.get(1) == before
    assert await catalog.get(2) is None


async def test_a_complete_file_answers_with_its_digest(catalog: Catalog) -> None:
    await catalog.open(REQUEST)
    complete = await bring_to(catalog, 1, State.COMPLETE)
    opened = await catalog.open(REQUEST)
    assert (opened.outcome, opened.upload) == (Outcome.COMPLETE, complete)
    assert (complete.crc32c, complete.sha256) == (7, b"s" * 32)


@pytest.mark.parametrize("state", [State.RECEIVING, State.PARTIAL])
async def test_a_replacement_ends_an_upload_under_way_at_once(catalog: Catalog, state: State) -> None:
    await catalog.open(REQUEST)
    await bring_to(catalog, 1, state)
    opened = await catalog.open(replace(REPLACEMENT, now_ms=5_000))
    assert (opened.outcome, opened.previous) == (Outcome.CREATED, State.ABORTED)
    assert opened.replaced == End(1, state, State.ABORTED, 5_000, EndReason.REPLACED)
    aborted = await known(catalog, 1)
    assert (aborted.state, aborted.ranges, aborted.updated_ms) == (State.ABORTED, (), 5_000)
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 30


async def test_a_replacement_of_a_complete_file_ends_nothing_yet(catalog: Catalog) -> None:
    await catalog.open(REQUEST)
    complete = await bring_to(catalog, 1, State.COMPLETE)
    opened = await catalog.open(REPLACEMENT)
    assert (opened.outcome, opened.previous, opened.replaced) == (Outcome.CREATED, State.COMPLETE, None)
    assert await catalog.get(1) == complete
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 130


async def test_a_replacement_is_replaced_and_the_complete_file_stays(catalog: Catalog) -> None:
    await catalog.open(REQUEST)
    complete = await bring_to(catalog, 1, State.COMPLETE)
    await catalog.open(REPLACEMENT)
    opened = await catalog.open(replace(REPLACEMENT, upload_id=3, now_ms=5_000))
    assert opened.replaced == End(2, State.RECEIVING, State.ABORTED, 5_000, EndReason.REPLACED)
    assert await catalog.get(1) == complete
    completed = await catalog.complete(completion(3, size=30))
    assert completed is not None
    assert completed.superseded is not None
    assert completed.superseded.upload_id == 1


@pytest.mark.parametrize("ended", [State.REJECTED, State.ABORTED, State.DELETED, State.EXPIRED])
async def test_a_replacement_that_failed_leaves_the_name_to_the_complete_file(catalog: Catalog, ended: State) -> None:
    await catalog.open(REQUEST)
    complete = await bring_to(catalog, 1, State.COMPLETE)
    await catalog.open(REPLACEMENT)
    await bring_to(catalog, 2, ended)
    opened = await catalog.open(REQUEST)
    assert (opened.outcome, opened.upload) == (Outcome.COMPLETE, complete)
    assert (await catalog.open(replace(REQUEST, size=30))).outcome is Outcome.CONTENT_CHANGED
    again = await catalog.open(replace(REPLACEMENT, upload_id=3))
    assert (again.outcome, again.previous) == (Outcome.CREATED, State.COMPLETE)
    assert await catalog.get(1) == complete


@pytest.mark.parametrize(("ended", "outcome"), [(State.DELETED, Outcome.GONE), (State.EXPIRED, Outcome.CREATED)])
async def test_a_complete_file_that_outlived_its_replacement_ends_as_any_other(
    catalog: Catalog, ended: State, outcome: Outcome
) -> None:
    await catalog.open(REQUEST)
    await bring_to(catalog, 1, State.COMPLETE)
    await catalog.open(REPLACEMENT)
    await bring_to(catalog, 2, State.ABORTED, 3_000)
    await bring_to(catalog, 1, ended, 4_000)
    opened = await catalog.open(replace(REQUEST, upload_id=3, now_ms=5_000))
    assert (opened.outcome, opened.previous) == (outcome, ended)


async def test_a_complete_file_that_was_deleted_before_its_replacement_failed_is_gone(catalog: Catalog) -> None:
    await catalog.open(REQUEST)
    await bring_to(catalog, 1, State.COMPLETE)
    await catalog.open(REPLACEMENT)
    await bring_to(catalog, 1, State.DELETED, 3_000)
    await bring_to(catalog, 2, State.ABORTED, 4_000)
    request = replace(REQUEST, upload_id=3, now_ms=5_000, tombstone_after_ms=3_000)
    for each in (request, replace(request, disposition=RESUME_ONLY)):
        assert (await catalog.open(each)).outcome is Outcome.GONE
    opened = await catalog.open(replace(request, tombstone_after_ms=3_001))
    assert (opened.outcome, opened.previous) == (Outcome.CREATED, None)


async def test_an_upload_is_created_after_the_last_end_though_the_clock_was_set_back(catalog: Catalog) -> None:
    await catalog.open(REQUEST)
    await bring_to(catalog, 1, State.ABORTED, 9_000)
    opened = await catalog.open(replace(REQUEST, upload_id=2, now_ms=10))
    assert opened.upload is not None
    assert opened.upload.created_ms == 9_001
    await bring_to(catalog, 2, State.DELETED, 20)
    assert (await catalog.open(replace(REQUEST, upload_id=3, now_ms=30))).outcome is Outcome.GONE


async def test_many_at_once_are_each_answered(catalog: Catalog) -> None:
    requests = [replace(REQUEST, upload_id=number, name=f"file-{number}") for number in range(1, 501)]
    opened = await asyncio.gather(*(catalog.open(each) for each in requests))
    assert [each.upload.id for each in opened if each.upload] == list(range(1, 501))
    assert (await catalog.counts())[State.RECEIVING] == 500


async def test_one_open_that_fails_spoils_no_other(catalog: Catalog) -> None:
    await catalog.open(REQUEST)
    taken = replace(REQUEST, name="another", disposition=REPLACE)
    asked = (taken, replace(REQUEST, upload_id=3, name="third"), replace(REQUEST, upload_id=4, size=1 << 64, name="4"))
    failed, opened, overflown = await asyncio.gather(*(catalog.open(each) for each in asked), return_exceptions=True)
    assert isinstance(failed, CatalogFailed)
    assert isinstance(overflown, Exception)
    assert not isinstance(opened, BaseException)
    assert opened.upload == await catalog.get(3)
    assert await catalog.get(4) is None
