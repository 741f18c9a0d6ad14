"""Tokens that are issued."""

from dataclasses import replace

import pytest

from daemon.identity.tokens import (
    Identity,
    Kind,
    Scope,
    TokenIssuer,
    TokenVerifier,
)
from tests.support.made_tokens import NOW_MS, NOW_S, POLICY, symmetric


class TestIssuer:
    @pytest.mark.parametrize(
        ("kind", "scopes"),
        [
            (Kind.DEVICE, frozenset({Scope.UPLOAD, Scope.READ})),
            (Kind.OPERATOR, frozenset({Scope.READ, Scope.DELETE, Scope.ADMIN})),
        ],
    )
    def test_a_token_it_issued_is_accepted(self, verifier: TokenVerifier, kind: Kind, scopes: frozenset[Scope]) -> None:
        identity = Identity("acme", "x-1", kind, scopes, None, secret_generation=2)
        issued = TokenIssuer(POLICY, symmetric()).issue(identity, 60, NOW_MS)
        assert verifier.verify(issued, NOW_MS) == replace(identity, expires_s=NOW_S + 60)

    def test_it_never_outlives_the_authority_it_came_from(self, verifier: TokenVerifier) -> None:
        identity = Identity("acme", "x-1", Kind.DEVICE, frozenset({Scope.UPLOAD}), NOW_S + 10)
        issued = TokenIssuer(POLICY, symmetric()).issue(identity, 60, NOW_MS)
        assert verifier.verify(issued, NOW_MS).expires_s == NOW_S + 10

    def test_it_honours_the_name_of_the_tenant_claim(self) -> None:
        policy = replace(POLICY, tenant_claim="org")
        identity = Identity("acme", "x-1", Kind.DEVICE, frozenset({Scope.UPLOAD}), None)
        issued = TokenIssuer(policy, symmetric()).issue(identity, 60, NOW_MS)
        assert TokenVerifier(policy, [symmetric()]).verify(issued, NOW_MS).tenant == "acme"
