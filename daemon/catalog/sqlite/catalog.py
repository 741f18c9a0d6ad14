"""The catalog in one SQLite file: a connection that writes, and one that reads so that no list delays a commit."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from daemon.adapters.threads import Threads
from daemon.catalog.records import (
    HOLDING,
    Completed,
    Completion,
    Device,
    ListQuery,
    OpenRequest,
    OpenResult,
    Page,
    Position,
    Progress,
    State,
    Upload,
    Usage,
)
from daemon.catalog.sqlite import changes, devices, queries, schema
from daemon.catalog.sqlite.batching import BatchedRequests
from daemon.catalog.sqlite.lane import ConnectionLane, Watch

BUSY_TIMEOUT_S = 5
"""A command line that holds the catalog for a moment must not fail a commit; one that hangs must."""

WAL_BYTES_KEPT = 64 << 20
"""What the log may keep of the disk after a burst; it shrinks to this at a checkpoint."""


class SqliteCatalog:
    """`interface.Catalog` on SQLite 3.37 or later. Make it with `open_catalog`."""

    def __init__(self, writer: ConnectionLane, reader: ConnectionLane) -> None:
        self._writer = writer
        self._reader = reader
        self._openings = BatchedRequests(writer, "open", changes.open_uploads, _device_of)

    async def open(self, request: OpenRequest) -> OpenResult:
        return await self._openings.ask(request)

    async def commit(self, progress: Sequence[Progress]) -> Sequence[bool]:
        return await self._writer.run("commit", lambda connection: changes.commit(connection, progress))

    async def complete(self, completion: Completion) -> Completed | None:
        return await self._writer.run("complete", lambda connection: changes.complete(connection, completion))

    async def end(self, upload_id: int, state: State, now_ms: int, epoch: int | None = None) -> Upload | None:
        return await self._writer.run(
            "end", lambda connection: changes.end(connection, upload_id, state, now_ms, epoch)
        )

    async def park(self, upload_id: int, now_ms: int, epoch: int | None = None) -> Upload | None:
        return await self._writer.run("park", lambda connection: changes.park(connection, upload_id, now_ms, epoch))

    async def get(self, upload_id: int) -> Upload | None:
        return await self._reader.run("get", lambda connection: changes.get(connection, upload_id))

    async def find(self, tenant: str, device: str, name: str) -> Upload | None:
        return await self._reader.run("find", lambda connection: queries.find(connection, tenant, device, name))

    async def find_readable(self, tenant: str, device: str, name: str) -> Upload | None:
        return await self._reader.run(
            "find_readable", lambda connection: queries.find_readable(connection, tenant, device, name)
        )

    async def list(self, query: ListQuery) -> Page:
        return await self._reader.run("list", lambda connection: queries.list_uploads(connection, query))

    async def older(self, state: State, before_ms: int, limit: int, after: Position | None = None) -> Sequence[Upload]:
        return await self._reader.run(
            "older", lambda connection: queries.older(connection, state, before_ms, limit, after)
        )

    async def purge_tombstones(self, before_ms: int, limit: int) -> int:
        return await self._writer.run(
            "purge_tombstones", lambda connection: changes.purge_tombstones(connection, before_ms, limit)
        )

    async def existing(self, upload_ids: Collection[int]) -> frozenset[int]:
        return await self._reader.run("existing", lambda connection: queries.existing(connection, upload_ids))

    async def holding(self) -> int:
        counts = await self.counts()
        return sum(counts[state] for state in HOLDING)

    async def counts(self) -> Mapping[State, int]:
        return await self._reader.run("counts", queries.counts)

    async def receiving(self, after_id: int, limit: int) -> Sequence[Upload]:
        return await self._reader.run("receiving", lambda connection: queries.receiving(connection, after_id, limit))

    async def add_device(self, device: Device, *, replace: bool = False) -> bool:
        return await self._writer.run("add_device", lambda connection: devices.add_device(connection, device, replace))

    async def device(self, tenant: str, device: str) -> Device | None:
        return await self._reader.run("device", lambda connection: devices.get_device(connection, tenant, device))

    async def list_devices(self, tenant: str | None = None) -> Sequence[Device]:
        return await self._reader.run("list_devices", lambda connection: devices.list_devices(connection, tenant))

    async def set_disabled(self, tenant: str, device: str, disabled: bool, now_ms: int) -> bool:
        return await self._writer.run(
            "set_disabled", lambda connection: devices.set_disabled(connection, tenant, device, disabled, now_ms)
        )

    async def disabled(self) -> frozenset[tuple[str, str]]:
        return await self._reader.run("disabled", devices.disabled_devices)

    async def replaced(self) -> Mapping[tuple[str, str], int]:
        return await self._reader.run("replaced", devices.replaced_devices)

    async def usage(self, tenant: str, device: str) -> Usage:
        return await self._reader.run("usage", lambda connection: changes.usage(connection, tenant, device))

    async def ping(self) -> None:
        # The counts are in the file, so an answer means that it can be locked and read.
        await self._writer.run("ping", queries.counts)
        await self._reader.run("ping", queries.counts)

    async def close(self) -> None:
        # The writer last: the last connection to close puts the log into the file, and the reader may not.
        await self._reader.close()
        await self._writer.close()


async def open_catalog(path: Path, threads: Threads, watch: Watch | None = None) -> SqliteCatalog:
    """Open the catalog at `path`, made if it is absent and migrated if it is older than the program.

    `watch` is told of the transactions that may write.

    Raises CatalogNewer and CatalogFailed. Call on the running event loop; close it at the end.
    """
    migrations = schema.load()
    connect = partial(_connect_to_write, path, migrations)
    writer = ConnectionLane(threads, "catalog", path, connect, "BEGIN IMMEDIATE", watch)
    reader = ConnectionLane(threads, "catalog-read", path, partial(_connect_to_read, path), "BEGIN")
    catalog = SqliteCatalog(writer, reader)
    try:
        await catalog.ping()
    except BaseException:
        await catalog.close()
        raise
    return catalog


def _connect_to_write(path: Path, migrations: Sequence[schema.Migration]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # The log is synced at each commit: what is answered survives a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT:d}")
        schema.migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_to_read(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _device_of(request: OpenRequest) -> tuple[str, str]:
    return request.tenant, request.device
