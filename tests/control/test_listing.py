"""The query of a list: what is not understood is refused, never left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from control.errors import RequestError
from control.listing import LIMIT_DEFAULT, parse_query, write_cursor
from daemon.catalog.records import ListQuery, Position, State
from protocol.errors import ErrorCode


def test_an_empty_query_lists_everything_by_the_default_page() -> None:
    assert parse_query(MultiDict(), "acme") == ListQuery("acme", LIMIT_DEFAULT)


def test_each_parameter_is_read() -> None:
    query = MultiDict(
        device="d",
        state="partial",
        prefix="a/",
        updated_from="1970-01-01T00:00:01Z",
        updated_to="1970-01-01T01:00:02+01:00",
        limit="7",
        cursor=write_cursor(Position(5, 6)),
    )
    query.add("state", "complete")
    assert parse_query(query, "acme") == ListQuery(
        "acme", 7, "d", frozenset({State.PARTIAL, State.COMPLETE}), "a/", 1000, 2000, Position(5, 6)
    )


def test_times_finer_than_a_millisecond_are_rounded_into_the_span() -> None:
    query = MultiDict(updated_from="1970-01-01T00:00:00.0015Z", updated_to="1970-01-01T00:00:00.0015Z")
    parsed = parse_query(query, "acme")
    assert (parsed.updated_from_ms, parsed.updated_to_ms) == (2, 1)


def test_a_time_before_the_epoch_is_the_epoch() -> None:
    assert parse_query(MultiDict(updated_from="0001-01-01T00:00:00Z"), "acme").updated_from_ms == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "-1"),
        ("limit", "ten"),
        ("limit", "٣"),
        ("limit", "9" * 5000),
        ("state", "finished"),
        ("updated_from", "yesterday"),
        ("updated_from", "2026-01-01T00:00:00"),
        ("updated_to", "2026-01-01T00:00:00 01:00"),
        ("cursor", "%%%"),
        ("cursor", "AAAA"),
        ("cursor", "ü"),
        ("cursor", "_____" + "_" * 16 + "8"),
        ("colour", "red"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_query(MultiDict({name: value}), "acme")
    assert refused.value.code is ErrorCode.REQUEST_INVALID
    assert name in refused.value.detail
    assert len(refused.value.detail) < 200


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(RequestError, match="more than once"):
        parse_query(MultiDict([("device", "a"), ("device", "b")]), "acme")


@given(created_ms=st.integers(0, 2**63 - 1), file_id=st.integers(1, 2**63 - 1))
def test_a_cursor_comes_back_as_it_went(created_ms: int, file_id: int) -> None:
    cursor = write_cursor(Position(created_ms, file_id))
    assert parse_query(MultiDict(cursor=cursor), "acme").after == Position(created_ms, file_id)


@given(text=st.text(max_size=60))
def test_no_cursor_breaks_it(text: str) -> None:
    try:
        parse_query(MultiDict(cursor=text), "acme")
    except RequestError as refused:
        assert refused.code is ErrorCode.REQUEST_INVALID
