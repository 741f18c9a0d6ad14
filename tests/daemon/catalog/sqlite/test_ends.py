"""What an end leaves of an upload is counted, and an end that comes too late changes nothing."""

import sqlite3

import pytest

from daemon.catalog.records import End, EndReason, State
from daemon.catalog.sqlite import changes, queries
from daemon.catalog.sqlite.ends import write_end
from tests.support.catalog_samples import DEVICE, TENANT, completion
from tests.support.memory_catalog import create

EXPIRED = End(1, State.RECEIVING, State.EXPIRED, 2_000, EndReason.EXPIRED)


@pytest.mark.parametrize(
    ("state", "held_bytes"),
    [(State.REJECTED, 100), (State.ABORTED, 0), (State.DELETED, 0), (State.EXPIRED, 0)],
)
def test_it_counts_the_bytes_that_stay(connection: sqlite3.Connection, state: State, held_bytes: int) -> None:
    create(connection, 1)
    write_end(connection, End(1, State.RECEIVING, state, 2_000, EndReason.EXPIRED))
    assert changes.usage(connection, TENANT, DEVICE).held_bytes == held_bytes
    assert queries.counts(connection)[state] == 1


def test_a_completion_counts_what_it_has(connection: sqlite3.Connection) -> None:
    create(connection, 1, size=None)
    finished = End(1, State.RECEIVING, State.COMPLETE, 2_000, EndReason.FINISHED)
    assert write_end(connection, finished, epoch=2, completion=completion(1)) is None
    assert write_end(connection, finished, epoch=1, completion=completion(1)) is not None
    assert changes.usage(connection, TENANT, DEVICE).held_bytes == 100


def test_an_upload_that_is_in_another_state_by_now_is_left_alone(connection: sqlite3.Connection) -> None:
    create(connection, 1)
    parked = changes.park(connection, 1, 1_500, None)
    assert write_end(connection, EXPIRED) is None
    assert changes.get(connection, 1) == parked
