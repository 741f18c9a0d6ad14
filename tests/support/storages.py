"""Every implementation of storage, for the tests of their contracts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from daemon.adapters.clock import SystemClock
from daemon.adapters.files import SystemFiles
from daemon.adapters.threads import SystemThreads
from daemon.storage.interface import Contents, Staging
from daemon.storage.local.storage import LocalStorage
from tests.support.held_storage import HeldStorage

LOCAL = ("local", "local, not durable")
IN_MEMORY = "in memory"
UPLOAD, OTHER = 0x1234567890ABCDEF, 0x7FFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Stored:
    """The two interfaces of one storage that receiving needs."""

    staging: Staging
    contents: Contents


@asynccontextmanager
async def opened(kind: str, root: Path) -> AsyncIterator[Stored]:
    """Open an empty storage of this kind, and close it afterwards."""
    if kind == IN_MEMORY:
        held = HeldStorage(recorded=lambda _: ())
        yield Stored(held, held)
        return
    local = local_storage(kind, root)
    yield Stored(local.staging, local.contents)
    await local.close()


def local_storage(kind: str, root: Path) -> LocalStorage:
    """One of LOCAL."""
    return LocalStorage(
        root / "data", SystemFiles(), SystemThreads(), SystemClock(), open_files_max=4, is_durable=kind == LOCAL[0]
    )


async def content(contents: Contents, upload_id: int, offset: int = 0, count: int = 1 << 20) -> bytes:
    """Bytes of an upload."""
    reading = await contents.open(upload_id)
    try:
        return await reading.read(offset, count)
    finally:
        await reading.close()
