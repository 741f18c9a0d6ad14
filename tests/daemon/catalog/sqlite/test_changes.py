"""Opening, progress and completion in SQLite: all or nothing, several at once, and any history of one name."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.catalog.records import (
    UNDER_WAY,
    OpenRequest,
    Outcome,
    Progress,
    State,
    Upload,
)
from daemon.catalog.sqlite import changes, queries
from protocol.constants import Disposition
from tests.support.catalog_samples import (
    DEVICE,
    NAME,
    REPLACE,
    REQUEST,
    TENANT,
    completion,
    first_bytes,
)
from tests.support.memory_catalog import create, memory_catalog


def used(connection: sqlite3.Connection) -> int:
    return changes.usage(connection, TENANT, DEVICE).held_bytes


def in_state(connection: sqlite3.Connection, state: State) -> Upload:
    """A new upload that was brought to `state`."""
    upload = create(connection, 1, NAME)
    if state is State.COMPLETE:
        assert changes.complete(connection, completion(1)) is not None
    return changes.get(connection, 1) or upload


@pytest.mark.parametrize("earlier", [State.RECEIVING, State.COMPLETE])
def test_a_replacement_that_cannot_be_stored_leaves_the_earlier_one(
    connection: sqlite3.Connection, earlier: State
) -> None:
    before = in_state(connection, earlier)
    create(connection, 2)
    connection.execute("BEGIN")
    with pytest.raises(sqlite3.IntegrityError):
        changes.open_upload(connection, replace(REQUEST, upload_id=2, disposition=REPLACE))
    connection.execute("COMMIT")
    assert changes.get(connection, 1) == before


def test_a_completion_that_cannot_end_the_superseded_file_is_undone(connection: sqlite3.Connection) -> None:
    in_state(connection, State.COMPLETE)
    changes.open_upload(connection, replace(REQUEST, upload_id=2, disposition=REPLACE))
    before = list(connection.iterdump())
    connection.execute("BEGIN")
    connection.execute(
        "CREATE TEMP TRIGGER refuses BEFORE UPDATE OF state ON uploads WHEN OLD.id = 1 "
        "BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="disk I/O error"):
        changes.complete(connection, completion(2))
    connection.execute("COMMIT")
    assert list(connection.iterdump()) == before


@pytest.mark.parametrize("count", [0, 1, 3, changes.STATEMENT_ROWS_MAX, changes.STATEMENT_ROWS_MAX + 5])
def test_progress_comes_in_any_number(connection: sqlite3.Connection, count: int) -> None:
    for upload_id in range(1, count + 1):
        create(connection, upload_id)
    progress = [Progress(upload_id, 1, first_bytes(upload_id), 2_000) for upload_id in range(1, count + 1)]
    assert changes.commit(connection, progress) == [True] * count
    kept = queries.receiving(connection, 0, count + 1)
    assert [each.next_expected_byte for each in kept] == list(range(1, count + 1))


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["open", "open", "progress", "complete", "park", "end", "end readable", "purge"]),
        st.sampled_from(Disposition),
        st.sampled_from([None, 10, 20]),
        st.sampled_from([b"", b"a"]),
        st.sampled_from(State),
    ),
    max_size=25,
)


class Model:
    """The rules for one name, as plainly as they can be said, over all uploads that ever had it."""

    def __init__(self) -> None:
        self.all: list[Upload] = []

    @property
    def current(self) -> Upload | None:
        """What the name stands for."""
        return self._first_in(UNDER_WAY) or self.readable

    @property
    def readable(self) -> Upload | None:
        """What a reader gets."""
        ended = [each for each in self.all if each.state not in UNDER_WAY | {State.COMPLETE}]
        last = max(ended, key=lambda each: (each.updated_ms, each.created_ms), default=None)
        return self._first_in({State.COMPLETE}) or self._first_in(UNDER_WAY) or last

    def outcome(self, request: OpenRequest) -> Outcome:
        current = self.current
        alive = current is not None and current.state in UNDER_WAY | {State.COMPLETE}
        if current is not None and alive and request.disposition is not REPLACE:
            sizes = {current.size, request.size} - {None}
            short = request.size is not None and request.size < current.received_bytes
            if current.tag != request.tag or len(sizes) > 1 or short:
                return Outcome.CONTENT_CHANGED
            return Outcome.COMPLETE if current.state is State.COMPLETE else Outcome.RESUMED
        deleted = current is not None and current.state is State.DELETED
        if deleted and request.disposition is not REPLACE:
            return Outcome.GONE
        return Outcome.NOT_FOUND if request.disposition is Disposition.RESUME_ONLY else Outcome.CREATED

    def _first_in(self, states: Collection[State]) -> Upload | None:
        return next((each for each in self.all if each.state in states), None)


@given(ACTIONS)
@settings(max_examples=150, deadline=None)
def test_any_history_of_a_name_keeps_the_rules(
    actions: list[tuple[str, Disposition, int | None, bytes, State]],
) -> None:
    with closing(memory_catalog()) as connection:
        model = Model()
        for now_ms, (what, disposition, size, tag, state) in enumerate(actions, start=1):
            current = model.readable if what == "end readable" else model.current
            if what == "open":
                request = OpenRequest(now_ms, TENANT, DEVICE, NAME, disposition, now_ms, size, tag)
                assert changes.open_upload(connection, request).outcome is model.outcome(request)
            elif what == "purge":
                changes.purge_tombstones(connection, now_ms - 3, 100)
            elif current is not None and what == "progress":
                progress = Progress(current.id, current.epoch, first_bytes(5), now_ms)
                live = current.state is State.RECEIVING
                assert changes.commit(connection, [progress]) == [live]
            elif current is not None and what == "complete":
                done = changes.complete(connection, completion(current.id, current.epoch, 20, now_ms))
                assert (done is not None) is (current.state is State.RECEIVING)
            elif current is not None and what == "park":
                changes.park(connection, current.id, now_ms, None)
            elif current is not None:
                changes.end(connection, current.id, state, now_ms, None)
            kept = (changes.get(connection, upload_id) for upload_id in range(1, now_ms + 1))
            model.all = [each for each in kept if each is not None]
            check(connection, model)


def check(connection: sqlite3.Connection, model: Model) -> None:
    """What holds after any operation."""
    every = model.all
    assert sum(each.state in UNDER_WAY for each in every) <= 1
    assert sum(each.state is State.COMPLETE for each in every) <= 1
    assert queries.find(connection, TENANT, DEVICE, NAME) == model.current
    assert queries.find_readable(connection, TENANT, DEVICE, NAME) == model.readable
    assert used(connection) == sum(each.held_bytes for each in every)
    tally = {state: sum(each.state is state for each in every) for state in State}
    assert queries.counts(connection) == tally
    assert [each.created_ms for each in every] == sorted({each.created_ms for each in every})


class TestOpeningSeveral:
    """As one by one, in fewer statements."""

    FRESH, OPEN, PARTIAL, COMPLETE, CHANGED, REPLACED = "fresh", "open", "partial", "complete", "changed", "replaced"

    def prepared(self) -> sqlite3.Connection:
        connection = memory_catalog()
        for upload_id, name in enumerate((self.OPEN, self.PARTIAL, self.COMPLETE, self.CHANGED, self.REPLACED), 1):
            create(connection, upload_id, name)
        changes.park(connection, 2, 1_500, None)
        changes.complete(connection, completion(3))
        return connection

    def asked(self) -> list[OpenRequest]:
        names = [self.FRESH, self.OPEN, self.PARTIAL, self.COMPLETE, self.CHANGED, self.REPLACED]
        requests = [replace(REQUEST, upload_id=10 + index, name=name) for index, name in enumerate(names)]
        requests[4] = replace(requests[4], tag=b"other")
        requests[5] = replace(requests[5], disposition=REPLACE)
        return requests

    @pytest.mark.parametrize("fields", [{}, {"quota_bytes": 550}])
    def test_apart_they_fare_as_alone(self, fields: dict[str, int]) -> None:
        requests = [replace(request, **fields) for request in self.asked()]  # type: ignore[arg-type]  # each value fits the field it names
        with closing(self.prepared()) as one_by_one, closing(self.prepared()) as together:
            expected = [changes.open_upload(one_by_one, request) for request in requests]
            assert changes.open_uploads(together, requests) == expected
            assert list(together.iterdump()) == list(one_by_one.iterdump())

    def test_the_same_name_twice_is_taken_over(self) -> None:
        twice = [replace(REQUEST, upload_id=upload_id) for upload_id in (1, 2)]
        with closing(memory_catalog()) as connection:
            first, second = changes.open_uploads(connection, twice)
            assert (first.outcome, second.outcome) == (Outcome.CREATED, Outcome.RESUMED)
            assert second.upload is not None
            assert (second.upload.id, second.upload.epoch) == (1, 2)

    def test_one_that_cannot_be_leaves_nothing_of_the_others(self) -> None:
        with closing(self.prepared()) as connection:
            before = list(connection.iterdump())
            taken = replace(REQUEST, upload_id=1, name="taken")
            with pytest.raises(sqlite3.IntegrityError):
                changes.open_uploads(connection, [*self.asked(), taken])
            assert list(connection.iterdump()) == before
