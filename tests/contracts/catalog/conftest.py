"""Every implementation of daemon/catalog/interface.py, each with its own empty catalog."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.catalog.interface import Catalog
from daemon.catalog.sqlite.catalog import open_catalog
from tests.support.gated_catalog import ControlledCatalog


async def sqlite(directory: Path) -> Catalog:
    """In a file, on threads, as the daemon has it."""
    return await open_catalog(directory / "catalog.sqlite", SystemThreads())


async def gated(_: Path) -> Catalog:
    """The double of other tests, its gates open."""
    return ControlledCatalog()


@pytest.fixture(params=[sqlite, gated], ids=lambda make: make.__name__)
async def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Catalog]:
    make: Callable[[Path], Awaitable[Catalog]] = request.param
    opened = await make(tmp_path)
    yield opened
    await opened.close()
