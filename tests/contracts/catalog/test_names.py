"""What a name stands for, to a device that asks and to a reader."""

import pytest

from daemon.catalog.interface import Catalog
from daemon.catalog.records import State
from tests.support.catalog_samples import DEVICE, NAME, REPLACE, TENANT, bring_to, completion, create


async def found(catalog: Catalog) -> tuple[int | None, int | None]:
    """The ids that `find` and `find_readable` give."""
    upload = await catalog.find(TENANT, DEVICE, NAME)
    readable = await catalog.find_readable(TENANT, DEVICE, NAME)
    return None if upload is None else upload.id, None if readable is None else readable.id


async def test_a_name_that_was_never_used(catalog: Catalog) -> None:
    await create(catalog, 1, NAME, device="another")
    await create(catalog, 2, NAME, tenant="another")
    await create(catalog, 3, "another")
    assert await found(catalog) == (None, None)


@pytest.mark.parametrize("state", State)
async def test_a_name_that_was_used_once(catalog: Catalog, state: State) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, state)
    assert await found(catalog) == (1, 1)


async def test_while_a_complete_file_is_replaced_readers_get_it_and_devices_the_new_upload(catalog: Catalog) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await create(catalog, 2, NAME, disposition=REPLACE)
    assert await found(catalog) == (2, 1)
    await bring_to(catalog, 2, State.PARTIAL)
    assert await found(catalog) == (2, 1)
    await create(catalog, 3, NAME, disposition=REPLACE)
    assert await found(catalog) == (3, 1)
    assert await catalog.complete(completion(3)) is not None
    assert await found(catalog) == (3, 3)


@pytest.mark.parametrize("ended", [State.REJECTED, State.ABORTED, State.DELETED, State.EXPIRED])
async def test_once_a_replacement_has_failed_everybody_gets_the_complete_file(catalog: Catalog, ended: State) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await create(catalog, 2, NAME, disposition=REPLACE)
    await bring_to(catalog, 2, ended)
    assert await found(catalog) == (1, 1)


async def test_a_complete_file_that_is_deleted_while_it_is_replaced_leaves_the_new_upload(catalog: Catalog) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await create(catalog, 2, NAME, disposition=REPLACE)
    await bring_to(catalog, 1, State.DELETED)
    assert await found(catalog) == (2, 2)
    completed = await catalog.complete(completion(2))
    assert completed is not None
    assert completed.superseded is None


@pytest.mark.parametrize("ended", [State.REJECTED, State.ABORTED, State.EXPIRED])
async def test_a_failed_replacement_gives_the_name_back_though_the_file_was_deleted_meanwhile(
    catalog: Catalog, ended: State
) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await create(catalog, 2, NAME, disposition=REPLACE)
    await bring_to(catalog, 1, State.DELETED, 3_000)
    await bring_to(catalog, 2, ended, 4_000)
    assert await found(catalog) == (1, 1)


async def test_a_replacement_that_was_complete_keeps_the_name_when_it_ends(catalog: Catalog) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await create(catalog, 2, NAME, disposition=REPLACE)
    await bring_to(catalog, 2, State.COMPLETE, 3_000)
    await bring_to(catalog, 2, State.EXPIRED, 4_000)
    assert await found(catalog) == (2, 2)


async def test_a_replacement_that_was_deleted_too_keeps_the_name(catalog: Catalog) -> None:
    """Its tombstone is kept for longer."""
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await create(catalog, 2, NAME, disposition=REPLACE)
    await bring_to(catalog, 1, State.DELETED, 3_000)
    await bring_to(catalog, 2, State.DELETED, 4_000)
    assert await found(catalog) == (2, 2)


async def test_an_upload_that_was_opened_after_the_deletion_has_the_name(catalog: Catalog) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await bring_to(catalog, 1, State.DELETED, 3_000)
    await create(catalog, 2, NAME, disposition=REPLACE, now_ms=3_000)
    await bring_to(catalog, 2, State.ABORTED, 4_000)
    assert await found(catalog) == (2, 2)


async def test_a_rejected_upload_that_is_deleted_meanwhile_takes_no_name(catalog: Catalog) -> None:
    """It was never the file under the name."""
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.REJECTED)
    await create(catalog, 2, NAME, now_ms=2_500)
    await bring_to(catalog, 1, State.DELETED, 3_000)
    await bring_to(catalog, 2, State.ABORTED, 4_000)
    assert await found(catalog) == (2, 2)


async def test_of_uploads_that_ended_the_last_one_counts(catalog: Catalog) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await create(catalog, 2, NAME, disposition=REPLACE)
    await bring_to(catalog, 2, State.REJECTED, 3_000)
    await bring_to(catalog, 1, State.DELETED, 4_000)
    assert await found(catalog) == (1, 1)
