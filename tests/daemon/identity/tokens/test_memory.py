"""What a verifier remembers, and for how long."""

from dataclasses import replace

import jwt
import pytest

from daemon.identity.tokens import (
    Reason,
    TokenVerifier,
)
from tests.support.made_tokens import NOW_MS, NOW_S, POLICY, refused, symmetric, token, watched


class TestMemory:
    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The tokens whose signature was looked at."""
        return watched(monkeypatch, jwt.PyJWT, "decode")

    def test_a_token_is_verified_once(self, verifier: TokenVerifier, decoded: list[str]) -> None:
        assert verifier.verify(token(), NOW_MS) == verifier.verify(token(), NOW_MS + 1)
        assert decoded == [token()]

    def test_a_remembered_token_expires(self, verifier: TokenVerifier) -> None:
        verifier.verify(token(), NOW_MS)
        assert refused(verifier, token(), NOW_MS + 630_000).reason is Reason.EXPIRED

    def test_refused_ones_are_not_remembered(self, verifier: TokenVerifier, decoded: list[str]) -> None:
        early = token({"nbf": NOW_S + 31})
        refused(verifier, early)
        verifier.verify(early, NOW_MS + 1000)
        assert decoded == [early, early]

    def test_the_least_recently_used_goes_first(self, decoded: list[str]) -> None:
        verifier = TokenVerifier(replace(POLICY, cache_size=2), [symmetric()])
        a, b, c = (token({"sub": name}) for name in "abc")
        for text in (a, b, a, c, a, b):
            verifier.verify(text, NOW_MS)
        assert decoded == [a, b, c, b]

    def test_it_can_be_off(self, decoded: list[str]) -> None:
        verifier = TokenVerifier(replace(POLICY, cache_size=0), [symmetric()])
        verifier.verify(token(), NOW_MS)
        verifier.verify(token(), NOW_MS)
        assert len(decoded) == 2

    def test_new_keys_judge_what_was_remembered(self, verifier: TokenVerifier) -> None:
        verifier.verify(token(), NOW_MS)
        verifier.reload(POLICY, [symmetric(b"z" * 32)])
        assert refused(verifier, token()).reason is Reason.SIGNATURE

    def test_a_new_policy_judges_what_was_remembered(self, verifier: TokenVerifier) -> None:
        verifier.verify(token(), NOW_MS)
        verifier.reload(replace(POLICY, audience="other"), [symmetric()])
        assert refused(verifier, token()).reason is Reason.AUDIENCE
