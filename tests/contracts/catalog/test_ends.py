"""How uploads end: once, where the table allows it, and under the epoch that holds them."""

import pytest

from daemon.catalog.interface import Catalog
from daemon.catalog.records import ENDINGS, TOMBSTONES, End, EndReason, State
from tests.support.catalog_samples import (
    DEVICE,
    NAME,
    REPLACE,
    TENANT,
    bring_to,
    completion,
    create,
    first_bytes,
    known,
)


async def test_a_completion_sets_all_that_is_known(catalog: Catalog) -> None:
    await create(catalog, 1, NAME, size=None)
    completed = await catalog.complete(completion(1, size=70))
    assert completed is not None
    upload = await known(catalog, 1)
    assert (completed.upload, completed.superseded) == (upload, None)
    assert (upload.state, upload.size, upload.crc32c) == (State.COMPLETE, 70, 7)
    assert (upload.sha256, upload.ranges, upload.completed_ms) == (b"s" * 32, first_bytes(70), 2_000)
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 70


async def test_a_completion_of_another_epoch_or_state_is_fenced(catalog: Catalog) -> None:
    before = await create(catalog, 1)
    assert await catalog.complete(completion(1, epoch=2)) is None
    assert await catalog.complete(completion(2)) is None
    assert await catalog.get(1) == before
    assert await catalog.complete(completion(1)) is not None
    assert await catalog.complete(completion(1)) is None


async def test_a_completion_ends_the_file_that_it_replaces(catalog: Catalog) -> None:
    await create(catalog, 1, NAME)
    await bring_to(catalog, 1, State.COMPLETE)
    await create(catalog, 2, NAME, size=30, disposition=REPLACE)
    completed = await catalog.complete(completion(2, size=30, now_ms=3_000))
    assert completed is not None
    assert completed.superseded == End(1, State.COMPLETE, State.DELETED, 3_000, EndReason.SUPERSEDED)
    superseded = await known(catalog, 1)
    assert (superseded.state, superseded.ranges, superseded.updated_ms) == (State.DELETED, (), 3_000)
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 30


@pytest.mark.parametrize("start", list(State))
@pytest.mark.parametrize("to", list(State))
async def test_an_upload_ends_where_the_table_allows_it(catalog: Catalog, start: State, to: State) -> None:
    await create(catalog, 1, NAME)
    before = await bring_to(catalog, 1, start)
    after = await catalog.end(1, to, 9_000)
    assert (after is not None) is (to in ENDINGS.get(start, ()))
    assert await catalog.get(1) == (after or before)
    if after is not None:
        assert (after.state, after.updated_ms) == (to, 9_000)
        assert after.ranges == (() if to in TOMBSTONES else before.ranges)
        assert (await catalog.usage(TENANT, DEVICE)).held_bytes == (0 if to in TOMBSTONES else 100)


async def test_an_end_can_be_fenced(catalog: Catalog) -> None:
    await create(catalog, 1)
    assert await catalog.end(1, State.ABORTED, 2_000, 2) is None
    assert await catalog.end(1, State.ABORTED, 2_000, 1) is not None
    assert await catalog.end(2, State.ABORTED, 2_000) is None


@pytest.mark.parametrize("state", list(State))
async def test_only_a_receiving_upload_is_parked(catalog: Catalog, state: State) -> None:
    await create(catalog, 1)
    before = await bring_to(catalog, 1, state)
    parked = await catalog.park(1, 9_000)
    assert (parked is not None) is (state is State.RECEIVING)
    assert await catalog.get(1) == (parked or before)
    if parked is not None:
        assert (parked.state, parked.updated_ms) == (State.PARTIAL, 9_000)


async def test_parking_can_be_fenced(catalog: Catalog) -> None:
    await create(catalog, 1)
    assert await catalog.park(1, 9_000, 2) is None
    assert await catalog.park(1, 9_000, 1) is not None
    assert await catalog.park(2, 9_000) is None


async def test_old_tombstones_are_purged_and_nothing_else(catalog: Catalog) -> None:
    for upload_id, state in enumerate(
        (State.ABORTED, State.DELETED, State.EXPIRED, State.REJECTED, State.PARTIAL, State.COMPLETE), start=1
    ):
        await create(catalog, upload_id)
        await bring_to(catalog, upload_id, state)
    await create(catalog, 10)
    await bring_to(catalog, 10, State.DELETED, 2_001)
    assert [await catalog.purge_tombstones(2_001, 2) for _ in range(3)] == [2, 1, 0]
    assert {each for each in range(12) if await catalog.get(each)} == {4, 5, 6, 10}
    assert sum((await catalog.counts()).values()) == 4


async def test_bytes_are_counted_and_known_until_the_end(catalog: Catalog) -> None:
    for upload_id, state in enumerate(State, start=1):
        await create(catalog, upload_id)
        await bring_to(catalog, upload_id, state)
    holding = {1, 2, 3, 4}
    assert await catalog.existing(range(20)) == holding
    assert await catalog.existing([]) == frozenset()
    assert await catalog.holding() == len(holding)
    assert (await catalog.usage(TENANT, DEVICE)).held_bytes == 100 * len(holding)
    assert await catalog.counts() == dict.fromkeys(State, 1)
