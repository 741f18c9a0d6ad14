"""Opening, progress, completion and endings, as SQL does them."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.catalog.records import (
    ENDINGS,
    TOMBSTONES,
    Disposition,
    Metadata,
    OpenRequest,
    Outcome,
    Progress,
    State,
    Upload,
)
from daemon.catalog.sqlite import changes, queries
from protocol.ranges import DigestedRange
from tests.support.catalog_samples import (
    DEVICE,
    NAME,
    REPLACE,
    REQUEST,
    TENANT,
    completion,
    create,
    first_bytes,
    memory_catalog,
)


def used(connection: sqlite3.Connection) -> int:
    return changes.usage(connection, TENANT, DEVICE)


def in_state(connection: sqlite3.Connection, state: State) -> Upload:
    """A new upload that was brought to `state`."""
    upload = create(connection, 1, NAME)
    if state is State.COMPLETE:
        assert changes.complete(connection, completion(1)) is not None
    elif state is not State.RECEIVING:
        assert changes.end(connection, 1, state, 1_500, None) is not None
    return changes.get(connection, 1) or upload


def test_a_created_upload_is_what_was_asked_for(connection: sqlite3.Connection) -> None:
    request = replace(
        REQUEST, tag=b"t", crc32c_expected=1, sha256_expected=b"s" * 32, metadata=Metadata("a/b", "x", "n")
    )
    opened = changes.open_upload(connection, request)
    assert opened.outcome is Outcome.CREATED
    assert opened.upload == changes.get(connection, 1)
    assert opened.upload is not None
    assert (opened.upload.epoch, opened.upload.tag, opened.upload.metadata) == (1, b"t", Metadata("a/b", "x", "n"))
    assert used(connection) == 100


def test_a_resumed_upload_is_written(connection: sqlite3.Connection) -> None:
    create(connection, 1, NAME, size=None)
    assert used(connection) == 0
    changes.end(connection, 1, State.PARTIAL, 1_500, None)
    resumed = changes.open_upload(connection, replace(REQUEST, upload_id=2, now_ms=3_000))
    assert resumed.outcome is Outcome.RESUMED
    assert resumed.upload == changes.get(connection, 1)
    assert resumed.upload is not None
    assert (resumed.upload.epoch, resumed.upload.state, resumed.upload.size) == (2, State.RECEIVING, 100)
    assert used(connection) == 100


def test_a_refused_open_changes_nothing(connection: sqlite3.Connection) -> None:
    before = create(connection, 1, NAME)
    assert changes.open_upload(connection, replace(REQUEST, tag=b"new")).outcome is Outcome.CONTENT_CHANGED
    over = replace(REQUEST, upload_id=2, name="other", quota_bytes=150)
    assert changes.open_upload(connection, over).outcome is Outcome.QUOTA_EXCEEDED
    assert changes.get(connection, 1) == before
    assert changes.get(connection, 2) is None


def test_a_replacement_ends_an_open_upload_at_once(connection: sqlite3.Connection) -> None:
    create(connection, 1, NAME)
    opened = changes.open_upload(connection, replace(REQUEST, upload_id=2, size=30, disposition=REPLACE))
    assert (opened.outcome, opened.previous, opened.replaced_id) == (Outcome.CREATED, State.ABORTED, 1)
    aborted = changes.get(connection, 1)
    assert aborted is not None
    assert (aborted.state, aborted.is_current, aborted.ranges) == (State.ABORTED, False, ())
    assert used(connection) == 30


def test_a_complete_upload_stays_readable_until_its_replacement_is_complete(connection: sqlite3.Connection) -> None:
    in_state(connection, State.COMPLETE)
    opened = changes.open_upload(connection, replace(REQUEST, upload_id=2, size=30, disposition=REPLACE))
    assert (opened.outcome, opened.replaced_id) == (Outcome.CREATED, None)
    kept = changes.get(connection, 1)
    assert kept is not None
    assert (kept.state, kept.is_current) == (State.COMPLETE, False)
    assert used(connection) == 130
    completed = changes.complete(connection, completion(2, size=30))
    assert completed is not None
    assert (completed.superseded_id, completed.upload) == (1, changes.get(connection, 2))
    superseded = changes.get(connection, 1)
    assert superseded is not None
    assert (superseded.state, superseded.ranges) == (State.DELETED, ())
    assert used(connection) == 30


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


def test_a_completion_that_cannot_bury_the_superseded_file_is_none(connection: sqlite3.Connection) -> None:
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


def test_progress_is_recorded_and_counted(connection: sqlite3.Connection) -> None:
    create(connection, 1, NAME, size=None)
    ranges = (DigestedRange(0, 40, 1), DigestedRange(50, 60, 2))
    assert changes.commit(connection, [Progress(1, 1, ranges, 4_000)]) == [True]
    upload = changes.get(connection, 1)
    assert upload is not None
    assert (upload.ranges, upload.updated_ms) == (ranges, 4_000)
    assert used(connection) == 50


def test_progress_of_another_epoch_or_state_is_fenced(connection: sqlite3.Connection) -> None:
    for upload_id in (1, 2, 3):
        create(connection, upload_id)
    changes.end(connection, 2, State.ABORTED, 1_500, None)
    progress = [
        Progress(upload_id, epoch, first_bytes(9), 2_000) for upload_id, epoch in ((1, 1), (2, 1), (3, 2), (4, 1))
    ]
    assert changes.commit(connection, progress) == [True, False, False, False]
    assert [each.next_expected_byte for each in queries.receiving(connection, 0, 10)] == [9, 0]


def test_the_last_progress_of_an_upload_counts(connection: sqlite3.Connection) -> None:
    create(connection, 1)
    progress = [Progress(1, 1, first_bytes(count), 2_000) for count in (10, 20, 30)]
    assert changes.commit(connection, progress) == [True] * 3
    upload = changes.get(connection, 1)
    assert upload is not None
    assert upload.next_expected_byte == 30


@pytest.mark.parametrize("count", [0, 1, 3, changes.STATEMENT_ROWS_MAX, changes.STATEMENT_ROWS_MAX + 5])
def test_progress_comes_in_any_number(connection: sqlite3.Connection, count: int) -> None:
    for upload_id in range(1, count + 1):
        create(connection, upload_id)
    progress = [Progress(upload_id, 1, first_bytes(upload_id), 2_000) for upload_id in range(1, count + 1)]
    assert changes.commit(connection, progress) == [True] * count
    kept = queries.receiving(connection, 0, count + 1)
    assert [each.next_expected_byte for each in kept] == list(range(1, count + 1))


def test_a_clock_that_was_set_back_does_not_put_an_update_before_the_creation(connection: sqlite3.Connection) -> None:
    create(connection, 1)
    assert changes.commit(connection, [Progress(1, 1, (), 5)]) == [True]
    upload = changes.get(connection, 1)
    assert upload is not None
    assert upload.updated_ms == upload.created_ms


def test_a_completion_sets_all_that_is_known(connection: sqlite3.Connection) -> None:
    create(connection, 1, NAME, size=None)
    completed = changes.complete(connection, completion(1, size=70))
    assert completed is not None
    upload = completed.upload
    assert (upload.state, upload.is_current, upload.size, upload.crc32c) == (State.COMPLETE, True, 70, 7)
    assert (upload.sha256, upload.ranges, upload.completed_ms) == (b"s" * 32, first_bytes(70), 2_000)
    assert completed.superseded_id is None
    assert used(connection) == 70


def test_a_completion_of_another_epoch_or_state_is_fenced(connection: sqlite3.Connection) -> None:
    before = create(connection, 1)
    assert changes.complete(connection, completion(1, epoch=2)) is None
    assert changes.get(connection, 1) == before
    assert changes.complete(connection, completion(1)) is not None
    assert changes.complete(connection, completion(1)) is None


@pytest.mark.parametrize("start", list(State))
@pytest.mark.parametrize("to", list(State))
def test_an_upload_ends_where_the_table_allows_it(connection: sqlite3.Connection, start: State, to: State) -> None:
    before = in_state(connection, start)
    after = changes.end(connection, 1, to, 9_000, None)
    assert (after is not None) is (to in ENDINGS.get(start, ()))
    if after is None:
        assert changes.get(connection, 1) == before
        return
    assert after == changes.get(connection, 1)
    assert (after.state, after.updated_ms, after.is_current) == (to, 9_000, to is State.PARTIAL)
    assert used(connection) == (0 if to in TOMBSTONES else 100)


def test_an_ending_can_be_fenced(connection: sqlite3.Connection) -> None:
    create(connection, 1)
    assert changes.end(connection, 1, State.ABORTED, 2_000, 2) is None
    assert changes.end(connection, 1, State.ABORTED, 2_000, 1) is not None
    assert changes.end(connection, 2, State.ABORTED, 2_000, None) is None


def test_old_tombstones_are_purged_and_nothing_else(connection: sqlite3.Connection) -> None:
    states = [State.ABORTED, State.DELETED, State.EXPIRED, State.REJECTED, State.PARTIAL]
    for upload_id, state in enumerate(states, start=1):
        create(connection, upload_id)
        changes.end(connection, upload_id, state, 2_000, None)
    create(connection, 10)
    changes.end(connection, 10, State.DELETED, 2_001, None)
    assert changes.purge_tombstones(connection, 2_001, 2) == 2
    assert changes.purge_tombstones(connection, 2_001, 2) == 1
    assert changes.purge_tombstones(connection, 2_001, 2) == 0
    assert {each for each in range(12) if changes.get(connection, each)} == {4, 5, 10}
    assert sum(queries.counts(connection).values()) == 3


Action = tuple[str, Disposition, int | None, bytes, State]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["open", "open", "progress", "complete", "end", "purge"]),
        st.sampled_from(Disposition),
        st.sampled_from([None, 10, 20]),
        st.sampled_from([b"", b"a"]),
        st.sampled_from(State),
    ),
    max_size=25,
)


class Model:
    """The rules for one name, as plainly as they can be said: all uploads in the order in which they were made."""

    def __init__(self) -> None:
        self.all: list[Upload] = []

    @property
    def current(self) -> Upload | None:
        return next((each for each in self.all if each.is_current), None)

    def outcome(self, request: OpenRequest) -> Outcome:
        current = self.current
        if current is not None and request.disposition is not REPLACE:
            sizes = {current.size, request.size} - {None}
            short = request.size is not None and request.size < current.received_bytes
            if current.tag != request.tag or len(sizes) > 1 or short:
                return Outcome.CONTENT_CHANGED
            return Outcome.COMPLETE if current.state is State.COMPLETE else Outcome.RESUMED
        deleted = bool(self.all) and current is None and self.all[-1].state is State.DELETED
        if deleted and request.disposition is not REPLACE:
            return Outcome.GONE
        return Outcome.NOT_FOUND if request.disposition is Disposition.RESUME_ONLY else Outcome.CREATED


@given(ACTIONS)
@settings(max_examples=150, deadline=None)
def test_any_history_of_a_name_keeps_the_rules(actions: list[Action]) -> None:
    with closing(memory_catalog()) as connection:
        model = Model()
        for now_ms, (what, disposition, size, tag, state) in enumerate(actions, start=1):
            current = model.current
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
            elif current is not None:
                changes.end(connection, current.id, state, now_ms, None)
            kept = (changes.get(connection, upload_id) for upload_id in range(1, now_ms + 1))
            model.all = [each for each in kept if each is not None]
            check(connection, model.all)


def check(connection: sqlite3.Connection, every: list[Upload]) -> None:
    """What holds after any operation."""
    assert sum(each.is_current for each in every) <= 1
    assert sum(each.state is State.COMPLETE for each in every) <= 1
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
        changes.end(connection, 2, State.PARTIAL, 1_500, None)
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
