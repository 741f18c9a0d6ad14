"""Batches share a transaction, and one that fails spoils no other."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import Event

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.sqlite.lane import ConnectionLane
from tests.support.deadlines import DEADLINE_S


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        connection.executescript(
            "PRAGMA foreign_keys = ON;"
            "CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY);"
            "CREATE TABLE IF NOT EXISTS children (file INTEGER REFERENCES files DEFERRABLE INITIALLY DEFERRED);"
            "CREATE TABLE IF NOT EXISTS large (data BLOB);"
        )
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@pytest.fixture
async def lane(path: Path) -> AsyncIterator[ConnectionLane]:
    opened = ConnectionLane(SystemThreads(), "test", path, lambda: connect(path), "BEGIN IMMEDIATE")
    yield opened
    await opened.close()


def insert(file_id: int) -> Callable[[sqlite3.Connection], int]:
    def run(connection: sqlite3.Connection) -> int:
        return connection.execute("INSERT INTO files VALUES (?)", (file_id,)).rowcount

    return run


def refuse(_: sqlite3.Connection) -> int:
    raise ValueError("no")


def files(connection: sqlite3.Connection) -> list[int]:
    return [file_id for (file_id,) in connection.execute("SELECT id FROM files ORDER BY id").fetchall()]


async def held(lane: ConnectionLane) -> Event:
    """Keep the lane busy until the event is set, so that what is asked meanwhile is one batch."""
    started, go_on = asyncio.Event(), Event()
    loop = asyncio.get_running_loop()

    def wait(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait(DEADLINE_S)

    waiting = asyncio.ensure_future(lane.run("wait", wait))
    await asyncio.wait_for(started.wait(), DEADLINE_S)
    assert not waiting.done()
    return go_on


async def test_a_result_is_there_once_others_see_it(lane: ConnectionLane, path: Path) -> None:
    assert await lane.run("insert", insert(1)) == 1
    other = connect(path)
    assert files(other) == [1]
    other.close()


async def test_what_is_asked_meanwhile_is_one_transaction(lane: ConnectionLane) -> None:
    begun: list[str] = []
    await lane.run("trace", lambda connection: connection.set_trace_callback(begun.append))
    go_on = await held(lane)
    begun.clear()
    asked = asyncio.gather(*(lane.run("insert", insert(number)) for number in range(5)))
    await asyncio.sleep(0)
    go_on.set()
    assert await asked == [1] * 5
    assert [each for each in begun if each in {"BEGIN IMMEDIATE", "COMMIT"}] == ["COMMIT", "BEGIN IMMEDIATE", "COMMIT"]


async def test_one_failing_operation_does_not_spoil_the_others(lane: ConnectionLane) -> None:
    go_on = await held(lane)
    operations = [insert(1), insert(1), refuse, insert(2)]
    asked = asyncio.gather(*(lane.run("insert", each) for each in operations), return_exceptions=True)
    await asyncio.sleep(0)
    go_on.set()
    first, twice, refused, last = await asked
    assert (first, last) == (1, 1)
    assert isinstance(twice, CatalogFailed)
    assert isinstance(refused, ValueError)
    assert await lane.run("files", files) == [1, 2]


async def test_a_failed_commit_fails_all_of_its_batch_and_the_next_goes_on(lane: ConnectionLane) -> None:
    go_on = await held(lane)
    # A child without a parent is found out at the COMMIT.
    orphan = "INSERT INTO children VALUES (99)"
    asked = asyncio.gather(
        lane.run("insert", insert(1)),
        lane.run("orphan", lambda connection: connection.execute(orphan).rowcount),
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    go_on.set()
    inserted, orphaned = await asked
    assert isinstance(inserted, CatalogFailed)
    assert isinstance(orphaned, CatalogFailed)
    assert await lane.run("files", files) == []
    assert await lane.run("insert", insert(2)) == 1


async def test_a_full_disk_is_recognised_and_ends_with_room(lane: ConnectionLane) -> None:
    def limit(pages: int) -> Callable[[sqlite3.Connection], None]:
        return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages:d}").close()

    def fill(connection: sqlite3.Connection) -> int:
        return connection.execute("INSERT INTO large VALUES (zeroblob(1000000))").rowcount

    await lane.run("limit", limit(20))
    with pytest.raises(CatalogFailed, match=r"fill: the catalog .*catalog\.sqlite failed .*free room") as failed:
        await lane.run("fill", fill)
    assert failed.value.disk_full
    await lane.run("limit", limit(10_000))
    assert await lane.run("fill", fill) == 1


async def test_a_catalog_held_by_another_process_is_named_with_what_to_do(lane: ConnectionLane, path: Path) -> None:
    await lane.run("files", files)
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogFailed, match=r"insert: .*another process holds it") as failed:
        await lane.run("insert", insert(1))
    assert not failed.value.disk_full
    other.rollback()
    other.close()
    assert await lane.run("insert", insert(1)) == 1


@pytest.fixture
def foreign(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)


@pytest.mark.usefixtures("foreign")
async def test_a_file_that_is_no_catalog_is_named(lane: ConnectionLane) -> None:
    with pytest.raises(CatalogFailed, match=r"not a database.*-wal and .*-shm away"):
        await lane.run("files", files)


async def test_a_connection_that_could_not_be_made_is_tried_again(path: Path) -> None:
    below = path.parent / "later" / path.name
    lane = ConnectionLane(SystemThreads(), "test", below, lambda: connect(below), "BEGIN IMMEDIATE")
    with pytest.raises(CatalogFailed, match=r"unable to open.*can be read and written"):
        await lane.run("files", files)
    below.parent.mkdir()
    assert await lane.run("files", files) == []
    await lane.close()


async def test_who_has_gone_away_is_not_answered(lane: ConnectionLane) -> None:
    go_on = await held(lane)
    left = [asyncio.ensure_future(lane.run("insert", insert(number))) for number in (1, 1)]
    await asyncio.sleep(0)
    for each in left:
        each.cancel()
    go_on.set()
    assert await lane.run("files", files) == [1]


async def test_a_closed_lane_finishes_what_was_asked_and_refuses_the_rest(path: Path) -> None:
    lane = ConnectionLane(SystemThreads(), "test", path, lambda: connect(path), "BEGIN IMMEDIATE")
    asked = asyncio.ensure_future(lane.run("insert", insert(1)))
    await asyncio.sleep(0)
    await lane.close()
    assert await asked == 1
    with pytest.raises(CatalogFailed, match=r"files: .*is closed"):
        await lane.run("files", files)


async def test_a_lane_that_was_never_used_closes(path: Path) -> None:
    await ConnectionLane(SystemThreads(), "test", path, lambda: connect(path), "BEGIN").close()
    assert list(path.parent.iterdir()) == []
