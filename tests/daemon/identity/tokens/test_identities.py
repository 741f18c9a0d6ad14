"""Who somebody is, by the claims of a token that is believed."""

from dataclasses import replace

import pytest

from daemon.identity.tokens import (
    Identity,
    Kind,
    Reason,
    Scope,
    TokenVerifier,
)
from tests.support.made_tokens import NOW_MS, NOW_S, POLICY, refused, symmetric, token


class TestIdentities:
    def test_a_plain_token_is_a_device_that_may_upload(self, verifier: TokenVerifier) -> None:
        expected = Identity("default", "device-1", Kind.DEVICE, frozenset({Scope.UPLOAD}), NOW_S + 600)
        assert verifier.verify(token(), NOW_MS) == expected

    def test_tenant_and_scopes_come_from_claims(self, verifier: TokenVerifier) -> None:
        identity = verifier.verify(token({"tenant": "acme", "scope": "read upload"}), NOW_MS)
        assert identity.tenant == "acme"
        assert identity.scopes == {Scope.READ, Scope.UPLOAD}

    def test_an_operator_says_so(self, verifier: TokenVerifier) -> None:
        identity = verifier.verify(
            token({"role": "operator", "sub": "a.b@example.org", "scope": "read delete admin"}), NOW_MS
        )
        assert (identity.kind, identity.subject) == (Kind.OPERATOR, "a.b@example.org")
        assert identity.scopes == {Scope.READ, Scope.DELETE, Scope.ADMIN}

    @pytest.mark.parametrize(
        ("role", "scope", "kept"),
        [
            ("device", "upload admin", {Scope.UPLOAD}),
            ("operator", "upload read", {Scope.READ}),
            ("device", "openid  upload", {Scope.UPLOAD}),
        ],
    )
    def test_scopes_outside_the_role_are_dropped(
        self, verifier: TokenVerifier, role: str, scope: str, kept: set[Scope]
    ) -> None:
        assert verifier.verify(token({"role": role, "scope": scope}), NOW_MS).scopes == kept

    def test_the_tenant_claim_can_have_another_name(self) -> None:
        verifier = TokenVerifier(replace(POLICY, tenant_claim="org"), [symmetric()])
        assert verifier.verify(token({"org": "acme", "tenant": "other"}), NOW_MS).tenant == "acme"

    def test_the_secret_that_bought_it_has_a_number(self, verifier: TokenVerifier) -> None:
        assert verifier.verify(token(), NOW_MS).secret_generation is None
        assert verifier.verify(token({"secret_generation": 3}), NOW_MS).secret_generation == 3

    @pytest.mark.parametrize("number", ["3", -1, 1.5, True, 2**63])
    def test_what_is_no_number_of_a_secret_is_refused(self, verifier: TokenVerifier, number: object) -> None:
        assert refused(verifier, token({"secret_generation": number})).reason is Reason.CLAIM_INVALID

    def test_it_remembers_the_key_that_signed_it(self, verifier: TokenVerifier) -> None:
        assert verifier.verify(token(), NOW_MS).key == symmetric().fingerprint
        assert verifier.trusts(symmetric().fingerprint)
        assert not verifier.trusts(symmetric(b"x" * 32).fingerprint)

    def test_one_audience_of_several_is_enough(self, verifier: TokenVerifier) -> None:
        assert verifier.verify(token({"aud": ["other", "uplinkd"]}), NOW_MS).subject == "device-1"

    def test_fractions_of_seconds_are_taken(self, verifier: TokenVerifier) -> None:
        assert verifier.verify(token({"exp": NOW_S + 0.5}), NOW_MS).expires_s == NOW_S


class TestTimes:
    @pytest.mark.parametrize("late_ms", [0, 1, 10_000_000])
    def test_expired_once_the_leeway_is_over(self, verifier: TokenVerifier, late_ms: int) -> None:
        end_ms = (NOW_S + 600 + 30) * 1000
        assert refused(verifier, token(), end_ms + late_ms).reason is Reason.EXPIRED

    def test_good_until_the_leeway_is_over(self, verifier: TokenVerifier) -> None:
        assert verifier.verify(token(), (NOW_S + 600 + 30) * 1000 - 1).expires_s == NOW_S + 600

    @pytest.mark.parametrize("claim", ["nbf", "iat"])
    def test_not_yet_valid_before_the_leeway(self, verifier: TokenVerifier, claim: str) -> None:
        early = token({claim: NOW_S + 31})
        assert refused(verifier, early).reason is Reason.NOT_YET_VALID
        assert verifier.verify(early, NOW_MS + 1000).subject == "device-1"

    def test_the_systems_clock_has_no_say(self, verifier: TokenVerifier) -> None:
        past = token({"exp": 1000, "iat": 500, "nbf": 500})
        assert verifier.verify(past, 600_000).expires_s == 1000
