"""The catalog as its callers see it: real files, real threads."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.catalog.interface import CatalogFailed, CatalogNewer
from daemon.catalog.sqlite import schema
from daemon.catalog.sqlite.catalog import SqliteCatalog, open_catalog
from daemon.catalog.sqlite.lane import ConnectionLane
from tests.support.catalog_samples import REQUEST
from tests.support.deadlines import DEADLINE_S

VERSION = len(schema.load())


def pragma(name: str) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]


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
