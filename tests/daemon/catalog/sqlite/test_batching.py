"""Many who ask share a trip to the catalog's thread, and one that fails spoils no other."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from daemon.adapters.threads import SystemThreads
from daemon.catalog.interface import CatalogFailed
from daemon.catalog.sqlite.batching import OWNER_ITEMS_MAX, BatchedRequests
from daemon.catalog.sqlite.lane import ConnectionLane

BAD = 13


class Doubling:
    """Doubles numbers, and knows in which trips they came; BAD it does not take."""

    def __init__(self) -> None:
        self.trips: list[list[int]] = []

    def __call__(self, _: sqlite3.Connection, numbers: Sequence[int]) -> list[int]:
        self.trips.append(list(numbers))
        if BAD in numbers:
            raise sqlite3.IntegrityError("bad luck")
        return [2 * number for number in numbers]


def owner_of(number: int) -> int:
    """Numbers from 1,000 on belong to one owner."""
    return min(number, 1000)


@pytest.fixture
async def lane(path: Path) -> AsyncIterator[ConnectionLane]:
    opened = ConnectionLane(
        SystemThreads(), "test", path, lambda: sqlite3.connect(path, isolation_level=None), "BEGIN IMMEDIATE"
    )
    yield opened
    await opened.close()


async def test_what_is_asked_together_is_one_trip(lane: ConnectionLane) -> None:
    doubling = Doubling()
    requests = BatchedRequests(lane, "double", doubling, owner_of)
    assert await asyncio.gather(*map(requests.ask, range(5))) == [0, 2, 4, 6, 8]
    assert doubling.trips == [[0, 1, 2, 3, 4]]


async def test_what_follows_closely_waits_and_shares_the_next_trip(lane: ConnectionLane) -> None:
    doubling = Doubling()
    requests = BatchedRequests(lane, "double", doubling, owner_of)
    first = asyncio.ensure_future(requests.ask(1))
    # The second turn of the loop finds the first on its way.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(requests.ask(number)) for number in (2, 3)]
    assert await asyncio.gather(first, *others) == [2, 4, 6]
    assert doubling.trips == [[1], [2, 3]]


async def test_each_owner_has_a_share_of_a_trip_and_the_rest_follows(lane: ConnectionLane) -> None:
    doubling = Doubling()
    requests = BatchedRequests(lane, "double", doubling, owner_of)
    greedy = range(1000, 1000 + 2 * OWNER_ITEMS_MAX + 1)
    await asyncio.gather(*map(requests.ask, (*greedy, 7)))
    first, *rest = doubling.trips
    assert first == [*greedy[:OWNER_ITEMS_MAX], 7]
    assert rest == [[*greedy[OWNER_ITEMS_MAX : 2 * OWNER_ITEMS_MAX]], [greedy[-1]]]


async def test_one_that_fails_spoils_no_other(lane: ConnectionLane) -> None:
    requests = BatchedRequests(lane, "double", Doubling(), owner_of)
    asked = asyncio.gather(*map(requests.ask, (1, BAD, 2)), return_exceptions=True)
    first, bad, last = await asked
    assert (first, last) == (2, 4)
    assert isinstance(bad, CatalogFailed)


async def test_those_who_gave_up_are_passed_over(lane: ConnectionLane) -> None:
    requests = BatchedRequests(lane, "double", Doubling(), owner_of)
    impatient = [asyncio.ensure_future(requests.ask(number)) for number in (1, BAD)]
    patient = asyncio.ensure_future(requests.ask(2))
    await asyncio.sleep(0)
    for each in impatient:
        each.cancel()
    assert await patient == 4
    assert all(isinstance(each, BaseException) for each in await asyncio.gather(*impatient, return_exceptions=True))


async def test_a_closed_catalog_answers_nobody(path: Path) -> None:
    lane = ConnectionLane(SystemThreads(), "test", path, lambda: sqlite3.connect(path), "BEGIN")
    await lane.close()
    with pytest.raises(CatalogFailed, match="closed"):
        await BatchedRequests(lane, "double", Doubling(), owner_of).ask(1)
