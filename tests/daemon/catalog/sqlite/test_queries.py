"""Lists are complete, ordered and cheap: every statement finds its rows by an index."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import product

import pytest

from daemon.catalog.records import PAGE_ROWS_MAX, ListQuery, Page, Position, Progress, State, Upload
from daemon.catalog.sqlite import changes, queries
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

NAMES = ["log/a", "log/ä", "log0", "lo", "img/1", "log/\U0010ffffz"]
STATES = list(State)


@pytest.fixture(scope="module")
def filled() -> Iterator[sqlite3.Connection]:
    """300 uploads of two tenants, three devices, six names and all states; three are created in each millisecond."""
    with closing(memory_catalog()) as connection:
        for number in range(1, 301):
            fill(connection, number)
        yield connection


def fill(connection: sqlite3.Connection, number: int) -> None:
    upload_id = (number * 7919) % 10_007
    tenant, device = ("acme", TENANT)[number % 5 > 0], f"pump-{number % 3}"
    name = f"{NAMES[number % 6]}/{number}" if number % 6 != 3 else f"{NAMES[3]}{number}"
    create(connection, upload_id, name, tenant=tenant, device=device, now_ms=1_000 + number // 3)
    state, now_ms = STATES[number % 7], 1_000 + number // 3 + number % 11
    if state is State.COMPLETE:
        changes.complete(connection, completion(upload_id, now_ms=now_ms))
    elif state is State.RECEIVING:
        changes.commit(connection, [Progress(upload_id, 1, first_bytes(5), now_ms)])
    elif state is State.PARTIAL:
        changes.park(connection, upload_id, now_ms, None)
    else:
        changes.end(connection, upload_id, state, now_ms, None)


def every(connection: sqlite3.Connection) -> list[Upload]:
    found = (changes.get(connection, upload_id) for upload_id in range(10_007))
    return sorted((each for each in found if each), key=lambda each: (each.created_ms, each.id), reverse=True)


def passes(upload: Upload, query: ListQuery) -> bool:
    return (
        upload.tenant == query.tenant
        and query.device in {None, upload.device}
        and (not query.states or upload.state in query.states)
        and upload.name.startswith(query.name_prefix or "")
        and (query.updated_from_ms is None or upload.updated_ms >= query.updated_from_ms)
        and (query.updated_to_ms is None or upload.updated_ms <= query.updated_to_ms)
    )


def pages(connection: sqlite3.Connection, query: ListQuery) -> list[Page]:
    found = [queries.list_uploads(connection, query)]
    while (after := found[-1].next) is not None:
        found.append(queries.list_uploads(connection, replace(query, after=after)))
    return found


QUERIES = [
    ListQuery(TENANT, 7, device, states, prefix, updated_from_ms, updated_to_ms)
    for device, states, prefix, updated_from_ms, updated_to_ms in product(
        [None, "pump-1"],
        [frozenset[State](), frozenset({State.COMPLETE}), frozenset({State.RECEIVING, State.PARTIAL, State.DELETED})],
        [None, "log/", "log/ä", "", "none"],
        [None, 1_040],
        [None, 1_070],
    )
]


@pytest.mark.parametrize("few", [0, queries.FEW_ROWS_MAX], ids=["walked", "picked"])
@pytest.mark.parametrize(
    "walk", [(2, 5), (queries.WALK_ROWS_FIRST, queries.WALK_ROWS_MAX)], ids=["short walks", "long walks"]
)
def test_the_pages_of_every_query_are_complete_ordered_and_without_duplicates(
    filled: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, few: int, walk: tuple[int, int]
) -> None:
    monkeypatch.setattr(queries, "FEW_ROWS_MAX", few)
    monkeypatch.setattr(queries, "WALK_ROWS_FIRST", walk[0])
    monkeypatch.setattr(queries, "WALK_ROWS_MAX", walk[1])
    known = every(filled)
    for query in QUERIES:
        found = pages(filled, query)
        expected = [each for each in known if passes(each, query)]
        assert [each for page in found for each in page.uploads] == expected, query
        assert all(len(page.uploads) <= query.limit for page in found)


def test_a_page_that_is_just_full_is_the_last(filled: sqlite3.Connection) -> None:
    count = sum(each.tenant == TENANT for each in every(filled))
    whole = queries.list_uploads(filled, ListQuery(TENANT, count))
    assert (len(whole.uploads), whole.next) == (count, None)
    cut = queries.list_uploads(filled, ListQuery(TENANT, count - 1))
    last = cut.uploads[-1]
    assert cut.next == Position(last.created_ms, last.id)


def test_what_arrives_between_pages_neither_repeats_nor_hides_an_upload(connection: sqlite3.Connection) -> None:
    for number in range(1, 21):
        fill(connection, number)
    before = [each for each in every(connection) if each.tenant == TENANT]
    query, seen, number = ListQuery(TENANT, 3), list[Upload](), 20
    page = queries.list_uploads(connection, query)
    while True:
        seen += page.uploads
        if page.next is None:
            break
        number += 1
        fill(connection, number)
        page = queries.list_uploads(connection, replace(query, after=page.next))
    assert seen == before


@pytest.mark.parametrize("state", State)
def test_older_uploads_come_oldest_first_in_pages(filled: sqlite3.Connection, state: State) -> None:
    ordered = sorted(every(filled), key=lambda each: (each.updated_ms, each.id))
    expected = [each for each in ordered if each.state is state and each.updated_ms < 1_080]
    found: list[Upload] = []
    after: Position | None = None
    while some := queries.older(filled, state, 1_080, 4, after):
        found += some
        after = Position(some[-1].updated_ms, some[-1].id)
    assert found == expected
    assert len(expected) > 4


def test_counts_are_those_of_the_rows(filled: sqlite3.Connection) -> None:
    known = every(filled)
    assert queries.counts(filled) == {state: sum(each.state is state for each in known) for state in State}


def plans(connection: sqlite3.Connection, ask: Callable[[sqlite3.Connection], object]) -> list[str]:
    """The steps of all statements that a question runs."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    ask(connection)
    connection.set_trace_callback(None)
    asked = [each for each in statements if each.startswith(("SELECT", "UPDATE", "DELETE"))]
    assert asked
    return [str(step[3]) for each in asked for step in connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchall()]


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection: queries.find(connection, TENANT, "nobody", NAME),
        lambda connection: queries.find_readable(connection, TENANT, "nobody", NAME),
        lambda connection: queries.older(connection, State.RECEIVING, 1_080, 5, Position(1_010, 3)),
        lambda connection: queries.older(connection, State.COMPLETE, 1_080, 5, None),
        lambda connection: queries.receiving(connection, 3, 5),
        lambda connection: queries.existing(connection, [1, 2]),
        lambda connection: changes.usage(connection, TENANT, DEVICE),
        lambda connection: changes.get(connection, 1),
        lambda connection: changes.purge_tombstones(connection, 0, 5),
        lambda connection: changes.commit(connection, [Progress(1, 9, (), 1)]),
        lambda connection: changes.complete(connection, completion(1, epoch=9)),
        lambda connection: changes.end(connection, 1, State.EXPIRED, 1, None),
        lambda connection: changes.park(connection, 1, 1, None),
        lambda connection: changes.open_upload(connection, replace(REQUEST, disposition=REPLACE, quota_bytes=1)),
        lambda connection: changes.open_uploads(connection, [REQUEST]),
    ],
    ids=lambda ask: re.sub(r"\W+", " ", str(ask.__code__.co_names)),
)
def test_no_statement_reads_all_uploads_or_sorts_them(
    filled: sqlite3.Connection, ask: Callable[[sqlite3.Connection], object]
) -> None:
    steps = plans(filled, ask)
    assert any("SEARCH" in each for each in steps)
    assert not [each for each in steps if re.search(r"SCAN (uploads|usage)|TEMP B-TREE", each)]


def no_rare_filters(_: ListQuery) -> list[tuple[str, tuple[queries.Value, ...]]]:
    """As if no index found only a few."""
    return []


@pytest.mark.parametrize("after", [None, Position(1_050, 3)])
@pytest.mark.parametrize("is_picked", [False, True], ids=["walked", "picked"])
def test_no_list_reads_all_uploads_and_no_walk_sorts_them(
    filled: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, is_picked: bool, after: Position | None
) -> None:
    if not is_picked:
        monkeypatch.setattr(queries, "_rare_filters", no_rare_filters)
    for query in QUERIES:
        asked = replace(query, after=after)
        steps = plans(filled, partial(queries.list_uploads, query=asked))
        assert not [each for each in steps if "SCAN uploads" in each], query
        picked = is_picked and (query.name_prefix or query.updated_from_ms or query.updated_to_ms)
        assert bool([each for each in steps if "TEMP B-TREE" in each]) is bool(picked), query


def test_a_walk_that_finds_nothing_ends_and_says_where_to_go_on(
    filled: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_rare_filters", no_rare_filters)
    monkeypatch.setattr(queries, "WALK_ROWS_FIRST", 5)
    monkeypatch.setattr(queries, "WALK_ROWS_MAX", 50)
    first = queries.list_uploads(filled, ListQuery(TENANT, PAGE_ROWS_MAX, name_prefix="none"))
    fiftieth = [each for each in every(filled) if each.tenant == TENANT][49]
    assert first == Page((), Position(fiftieth.created_ms, fiftieth.id))
