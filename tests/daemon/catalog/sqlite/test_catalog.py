"""The catalog as its callers see it: real files, real threads."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.catalog.interface import Catalog, CatalogFailed, CatalogNewer
from daemon.catalog.records import Device, Outcome, Progress, Query, State
from daemon.catalog.sqlite import schema
from daemon.catalog.sqlite.catalog import SqliteCatalog, open_catalog
from daemon.catalog.sqlite.lane import ConnectionLane
from tests.support.catalog_samples import DEVICE, NAME, REPLACE, REQUEST, TENANT, completion, first_bytes
from tests.support.deadlines import DEADLINE_S

VERSION = len(schema.load())


def pragma(name: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]


async def test_an_upload_from_open_to_purge(catalog: SqliteCatalog) -> None:
    uses: Catalog = catalog
    opened = await uses.open(REQUEST)
    assert (opened.outcome, opened.upload) == (Outcome.CREATED, await uses.get(1))
    assert (await uses.open(replace(REQUEST, upload_id=2))).outcome is Outcome.RESUMED
    progress = [Progress(1, 2, first_bytes(40), 1_500), Progress(1, 1, first_bytes(90), 1_500)]
    assert await uses.commit(progress) == [True, False]
    assert [each.next_expected_byte for each in await uses.receiving(0, 10)] == [40]
    assert await uses.older(State.RECEIVING, 2_000, 10) == [await uses.get(1)]
    completed = await uses.complete(completion(1, epoch=2))
    assert completed is not None
    assert completed.upload == await uses.find(TENANT, DEVICE, NAME)
    assert (await uses.list(Query(TENANT, 10))).uploads == (completed.upload,)
    assert (await uses.usage(TENANT, DEVICE), await uses.holding(), await uses.existing([1, 2])) == (
        100,
        1,
        frozenset({1}),
    )
    ended = await uses.end(1, State.DELETED, 3_000)
    assert ended is not None
    assert (await uses.counts())[State.DELETED] == 1
    assert (await uses.open(REQUEST)).outcome is Outcome.GONE
    assert await uses.purge_tombstones(4_000, 10) == 1
    assert (await uses.usage(TENANT, DEVICE), await uses.holding(), await uses.get(1)) == (0, 0, None)


async def test_devices(catalog: SqliteCatalog) -> None:
    pump = Device(TENANT, DEVICE, b"k" * 32, 1_000)
    assert await catalog.add_device(pump)
    assert await catalog.device(TENANT, DEVICE) == pump
    assert await catalog.list_devices() == await catalog.list_devices(TENANT) == [pump]
    assert await catalog.set_disabled(TENANT, DEVICE, True, 2_000)
    assert await catalog.disabled() == {(TENANT, DEVICE)}


async def test_many_at_once_are_each_answered(catalog: SqliteCatalog) -> None:
    requests = [replace(REQUEST, upload_id=number, name=f"file-{number}") for number in range(1, 501)]
    opened = await asyncio.gather(*(catalog.open(each) for each in requests))
    assert [each.upload.id for each in opened if each.upload] == list(range(1, 501))
    assert (await catalog.counts())[State.RECEIVING] == 500


async def test_one_open_that_fails_spoils_no_other(catalog: SqliteCatalog) -> None:
    await catalog.open(REQUEST)
    taken = replace(REQUEST, name="another", disposition=REPLACE)
    asked = (taken, replace(REQUEST, upload_id=3, name="third"), replace(REQUEST, upload_id=4, size=1 << 64, name="4"))
    failed, opened, overflown = await asyncio.gather(*(catalog.open(each) for each in asked), return_exceptions=True)
    assert isinstance(failed, CatalogFailed)
    assert isinstance(overflown, Exception)
    assert not isinstance(opened, BaseException)
    assert opened.upload == await catalog.get(3)
    assert await catalog.get(4) is None


async def test_what_was_answered_is_there_after_opening_again(path: Path) -> None:
    first = await open_catalog(path, SystemThreads())
    opened = await first.open(REQUEST)
    await first.close()
    again = await open_catalog(path, SystemThreads())
    assert await again.get(1) == opened.upload
    await again.close()
    assert list(path.parent.iterdir()) == [path]


async def test_a_commit_is_synced_to_the_log(catalog: SqliteCatalog) -> None:
    writer: ConnectionLane = catalog._writer
    assert await writer.run("test", pragma("journal_mode")) == "wal"
    # 2 is FULL: the log is synced at each commit.
    assert await writer.run("test", pragma("synchronous")) == 2


async def test_the_reader_cannot_write(catalog: SqliteCatalog) -> None:
    with pytest.raises(CatalogFailed, match="readonly"):
        await catalog._reader.run("test", lambda connection: connection.execute("DELETE FROM uploads").rowcount)


async def test_a_commit_does_not_wait_for_a_reader(catalog: SqliteCatalog) -> None:
    loop, reading, committed = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def read_long(connection: sqlite3.Connection) -> int:
        before: int = connection.execute("SELECT count(*) FROM uploads").fetchone()[0]
        loop.call_soon_threadsafe(reading.set)
        asyncio.run_coroutine_threadsafe(committed.wait(), loop).result(timeout=DEADLINE_S)
        after: int = connection.execute("SELECT count(*) FROM uploads").fetchone()[0]
        return before + after

    reader = asyncio.ensure_future(catalog._reader.run("test", read_long))
    await reading.wait()
    await catalog.open(REQUEST)
    committed.set()
    assert await reader == 0
    assert await catalog.get(1) is not None


async def test_a_newer_catalog_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(CatalogNewer, match="run the newer program"):
        await open_catalog(path, SystemThreads())


async def test_a_path_with_any_character_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a b?c#d%20.sqlite"
    opened = await open_catalog(path, SystemThreads())
    await opened.open(REQUEST)
    assert await opened.get(1) is not None
    await opened.close()
    assert path.exists()


async def test_a_catalog_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(CatalogFailed, match=r"ping: the catalog .*missing.*unable to open.*check that"):
        await open_catalog(tmp_path / "missing" / "catalog.sqlite", SystemThreads())


async def test_a_closed_catalog_says_so(path: Path) -> None:
    catalog = await open_catalog(path, SystemThreads())
    await catalog.close()
    with pytest.raises(CatalogFailed, match=r"open: .*is closed"):
        await catalog.open(REQUEST)
