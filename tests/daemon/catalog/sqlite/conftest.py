"""A connection to an empty catalog in memory, and a real catalog on real threads."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.catalog.sqlite.catalog import SqliteCatalog, open_catalog
from tests.support.memory_catalog import memory_catalog


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(memory_catalog()) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


@pytest.fixture
async def catalog(path: Path) -> AsyncIterator[SqliteCatalog]:
    opened = await open_catalog(path, SystemThreads())
    yield opened
    await opened.close()
