"""Preconditions, in the order of RFC 9110, section 13.2.2."""

import pytest
from multidict import CIMultiDict

from control.conditions import ConditionResult, Validators, evaluate, range_applies

HERE = Validators('"here"', 784111777, date_is_strong=True)
AT, BEFORE, AFTER = (
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:36 GMT",
    "Sun, 06 Nov 1994 08:49:38 GMT",
)

PROCEED, NOT_MODIFIED, FAILED = ConditionResult.PROCEED, ConditionResult.NOT_MODIFIED, ConditionResult.FAILED


@pytest.mark.parametrize(
    ("headers", "result"),
    [
        ({}, PROCEED),
        ({"If-Match": '"here"'}, PROCEED),
        ({"If-Match": '"there", "here"'}, PROCEED),
        ({"If-Match": "*"}, PROCEED),
        ({"If-Match": '"there"'}, FAILED),
        ({"If-Match": 'W/"here"'}, FAILED),
        ({"If-Match": "here"}, FAILED),
        ({"If-Unmodified-Since": AT}, PROCEED),
        ({"If-Unmodified-Since": AFTER}, PROCEED),
        ({"If-Unmodified-Since": BEFORE}, FAILED),
        ({"If-Unmodified-Since": "yesterday"}, PROCEED),
        ({"If-Match": '"here"', "If-Unmodified-Since": BEFORE}, PROCEED),
        ({"If-None-Match": '"here"'}, NOT_MODIFIED),
        ({"If-None-Match": 'W/"here"'}, NOT_MODIFIED),
        ({"If-None-Match": '"a,b" , "here"'}, NOT_MODIFIED),
        ({"If-None-Match": "*"}, NOT_MODIFIED),
        ({"If-None-Match": '"there"'}, PROCEED),
        ({"If-Modified-Since": AT}, NOT_MODIFIED),
        ({"If-Modified-Since": AFTER}, NOT_MODIFIED),
        ({"If-Modified-Since": BEFORE}, PROCEED),
        ({"If-Modified-Since": "1994"}, PROCEED),
        ({"If-None-Match": '"there"', "If-Modified-Since": AT}, PROCEED),
        ({"If-Match": '"there"', "If-None-Match": '"here"'}, FAILED),
        ({"If-Match": '"here"', "If-None-Match": '"here"'}, NOT_MODIFIED),
    ],
)
def test_what_follows_from_conditions(headers: dict[str, str], result: ConditionResult) -> None:
    assert evaluate(CIMultiDict(headers), HERE) is result


def test_a_list_may_come_in_several_lines() -> None:
    assert evaluate(CIMultiDict([("If-None-Match", '"there"'), ("if-none-match", '"here"')]), HERE) is NOT_MODIFIED


@pytest.mark.parametrize(
    "date", [AT, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"], ids=["imf", "rfc850", "asctime"]
)
def test_all_three_forms_of_a_date_are_read(date: str) -> None:
    assert evaluate(CIMultiDict({"If-Modified-Since": date}), HERE) is NOT_MODIFIED
    assert range_applies(CIMultiDict({"If-Range": date}), HERE)


@pytest.mark.parametrize(
    ("value", "applies"),
    [
        ('"here"', True),
        ('"there"', False),
        ('W/"here"', False),
        (AT, True),
        (BEFORE, False),
        (AFTER, False),
        ("nonsense", False),
    ],
)
def test_if_range_compares_strongly_and_dates_exactly(value: str, *, applies: bool) -> None:
    assert range_applies(CIMultiDict({"If-Range": value}), HERE) is applies


def test_a_weak_date_never_lets_a_range_through() -> None:
    weak = Validators(HERE.etag, HERE.modified_s, date_is_strong=False)
    assert not range_applies(CIMultiDict({"If-Range": AT}), weak)
    assert range_applies(CIMultiDict({"If-Range": '"here"'}), weak)


def test_without_if_range_every_range_applies() -> None:
    assert range_applies(CIMultiDict(), HERE)
