"""What every inventory does: it lists all of storage in parts, and quarantines."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.storage.interface import Storage
from tests.support.recorded_files import within, write
from tests.support.storages import LOCAL, OTHER, UPLOAD, local_storage


@pytest.fixture(params=LOCAL)
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    opened = local_storage(request.param, tmp_path)
    yield opened
    await opened.close()


async def test_every_upload_is_in_one_part_of_storage(storage: Storage) -> None:
    ids = {UPLOAD, OTHER, 1, 2, 255, 256, 257}
    for upload_id in ids:
        await within(write(storage.staging, upload_id, 0, b"x"))
    inventory = storage.inventory
    found = [each for shard in range(inventory.shards) for each in await inventory.stored(shard)]
    assert sorted(each.upload_id or 0 for each in found) == sorted(ids)


async def test_what_is_quarantined_is_no_longer_listed(storage: Storage) -> None:
    await within(write(storage.staging, 1, 0, b"x"))
    inventory = storage.inventory
    ((shard, found),) = [(shard, each) for shard in range(inventory.shards) for each in await inventory.stored(shard)]
    assert await inventory.modified_ms(shard, found.name) is not None
    await inventory.quarantine(shard, found.name)
    assert await inventory.stored(shard) == ()
    assert await inventory.modified_ms(shard, found.name) is None
    with pytest.raises(FileNotFoundError):
        await inventory.quarantine(shard, found.name)
