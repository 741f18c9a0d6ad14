"""Durable ranges are recorded under the epoch that holds the upload, and under no other."""

from daemon.catalog.interface import Catalog
from daemon.catalog.records import Progress, State
from protocol.ranges import DigestedRange
from tests.support.catalog_samples import DEVICE, NAME, REQUEST, TENANT, bring_to, create, first_bytes, known


async def test_progress_is_recorded_and_counted(catalog: Catalog) -> None:
    await create(catalog, 1, NAME, size=None)
    ranges = (DigestedRange(0, 40, 1), DigestedRange(50, 60, 2))
    assert await catalog.commit([Progress(1, 1, ranges, 4_000)]) == [True]
    upload = await known(catalog, 1)
    assert (upload.ranges, upload.updated_ms) == (ranges, 4_000)
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 50


async def test_progress_of_another_epoch_or_state_is_fenced(catalog: Catalog) -> None:
    for upload_id in (1, 2, 3):
        await create(catalog, upload_id)
    await bring_to(catalog, 2, State.ABORTED)
    progress = [
        Progress(upload_id, epoch, first_bytes(9), 2_000) for upload_id, epoch in ((1, 1), (2, 1), (3, 2), (4, 1))
    ]
    assert await catalog.commit(progress) == [True, False, False, False]
    assert [each.next_expected_byte for each in await catalog.receiving(0, 10)] == [9, 0]


async def test_a_resume_fences_its_elder(catalog: Catalog) -> None:
    await catalog.open(REQUEST)
    await catalog.open(REQUEST)
    progress = [Progress(1, 2, first_bytes(40), 1_500), Progress(1, 1, first_bytes(90), 1_500)]
    assert await catalog.commit(progress) == [True, False]
    assert (await known(catalog, 1)).next_expected_byte == 40


async def test_the_last_progress_of_an_upload_counts(catalog: Catalog) -> None:
    await create(catalog, 1)
    progress = [Progress(1, 1, first_bytes(count), 2_000) for count in (10, 20, 30)]
    assert await catalog.commit(progress) == [True] * 3
    assert (await known(catalog, 1)).next_expected_byte == 30


async def test_a_clock_that_was_set_back_does_not_put_an_update_before_the_creation(catalog: Catalog) -> None:
    await create(catalog, 1)
    assert await catalog.commit([Progress(1, 1, (), 5)]) == [True]
    upload = await known(catalog, 1)
    assert upload.updated_ms == upload.created_ms
