"""The error registry: the high byte is the scope, and the action fits the scope."""

import pytest

from protocol.constants import Action
from protocol.errors import ErrorCode, ErrorScope


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_the_high_byte_is_the_scope(code: ErrorCode) -> None:
    assert (
        code.scope
        is {1: ErrorScope.CONNECTION, 2: ErrorScope.STREAM, 3: ErrorScope.CHUNK, 4: ErrorScope.REQUEST}[code // 256]
    )


def test_codes_are_unique_and_fit_a_u16() -> None:
    assert len({int(code) for code in ErrorCode}) == len(list(ErrorCode.__members__))
    assert all(0 < code < 2**16 for code in ErrorCode)


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_the_action_fits_the_scope(code: ErrorCode) -> None:
    assert (code.action is Action.SEND_AGAIN) is (code.scope is ErrorScope.CHUNK)
    assert code.action is not Action.REAUTHENTICATE or code.scope is ErrorScope.CONNECTION
    assert code.action not in (Action.LEAVE, Action.OPEN_ANEW) or code.scope is ErrorScope.STREAM


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_a_summary_is_a_clause_for_people(code: ErrorCode) -> None:
    assert 20 <= len(code.summary) <= 100
    assert code.summary.isprintable()
    assert not code.summary.endswith(".")


def test_every_action_is_used() -> None:
    assert {code.action for code in ErrorCode} == set(Action)
