"""A real core on a directory, and a catalog that fails."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.sqlite.catalog import SqliteCatalog
from daemon.core import Core, Machine, open_core, system_machine
from daemon.settings import Settings
from daemon.storage.local.storage import LocalStorage
from tests.support.fake_machine import CapturedLog
from tests.support.populated_store import Keeping

FAILURE = "the disk is on fire"


@dataclass(slots=True)
class Running:
    """The core, its log, and its stores, to which uploads in any state can be added."""

    core: Core
    log: CapturedLog
    keeping: Keeping = field(init=False)

    def __post_init__(self) -> None:
        catalog, storage = self.core.catalog, self.core.storage
        assert isinstance(catalog, SqliteCatalog)
        assert isinstance(storage, LocalStorage)
        self.keeping = Keeping(self.core.settings.data_dir, catalog, storage)


class FailingCatalog:
    """A catalog whose every method fails, or hangs."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs

    def __getattr__(self, name: str) -> Callable[..., Coroutine[None, None, None]]:
        async def method(*_: object) -> None:
            if self._hangs:
                await asyncio.Event().wait()
            raise CatalogFailed(FAILURE)

        return method


def failing(*, hangs: bool = False) -> Catalog:
    """A catalog whose every method fails, or hangs."""
    return cast(Catalog, FailingCatalog(hangs=hangs))  # __getattr__ provides every method


@asynccontextmanager
async def core_on(settings: Settings, machine: Machine | None = None) -> AsyncIterator[Running]:
    """Open a core, and close it afterwards."""
    log = CapturedLog()
    async with open_core(settings, machine or system_machine(), log.logger) as core:
        yield Running(core, log)
