"""Every way in which a token is not believed."""

import hmac
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from daemon.identity.tokens import (
    TOKEN_CHARS_MAX,
    Reason,
    TokenVerifier,
)
from tests.support.made_tokens import (
    CLAIMS,
    EC,
    ED,
    NOW_MS,
    POLICY,
    RSA,
    SECRET,
    Json,
    encoded,
    public,
    refused,
    symmetric,
    token,
)


class TestRefusals:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "x",
            "a.b",
            "a.b.c",
            "...",
            "é.é.é",
            "\ud800",
            "x" * (TOKEN_CHARS_MAX + 1),
            f"{encoded(b'[]')}.{encoded(b'{}')}.",
            f"{encoded(b'[' * 5000)}.{encoded(b'{}')}.AA",
            f"{encoded(b'{}')}.{encoded(b'{}')}",
        ],
    )
    def test_what_is_no_token(self, verifier: TokenVerifier, text: str) -> None:
        assert refused(verifier, text).reason is Reason.MALFORMED

    @pytest.mark.parametrize("payload", [b"[]", b"5", b"{", b"\xff", b"[" * 5000])
    def test_a_payload_that_is_no_object(self, verifier: TokenVerifier, payload: bytes) -> None:
        header = encoded(b'{"alg": "HS256"}')
        signed = f"{header}.{encoded(payload)}"
        forged = f"{signed}.{encoded(hmac.digest(SECRET, signed.encode(), 'sha256'))}"
        assert refused(verifier, forged).reason is Reason.MALFORMED

    @pytest.mark.parametrize("header", [{"kid": 5}, {"crit": ["exp"]}, {"crit": []}, {"b64": False}])
    def test_headers_that_are_not_understood(self, verifier: TokenVerifier, header: Json) -> None:
        assert refused(verifier, token(header=header)).reason is Reason.MALFORMED

    @pytest.mark.parametrize("secret", [b"x" * 32, SECRET[:31], b""])
    def test_a_forged_signature(self, verifier: TokenVerifier, secret: bytes) -> None:
        assert refused(verifier, token(secret=secret)).reason is Reason.SIGNATURE

    def test_a_changed_claim(self, verifier: TokenVerifier) -> None:
        header, _, signature = token().split(".")
        changed = encoded(json.dumps({**CLAIMS, "sub": "device-2"}).encode())
        assert refused(verifier, f"{header}.{changed}.{signature}").reason is Reason.SIGNATURE

    @pytest.mark.parametrize(
        "algorithm", ["none", "None", "NONE", "nOnE", "", "HS512", "RS256", None, 5, ["HS256"], {}]
    )
    def test_an_algorithm_that_no_key_serves(self, verifier: TokenVerifier, algorithm: object) -> None:
        refusal = refused(verifier, token(header={"alg": algorithm}))
        assert refusal.reason is Reason.ALGORITHM
        assert "have it signed with HS256" in str(refusal)

    def test_alg_none_without_a_signature(self, verifier: TokenVerifier) -> None:
        forged = token(header={"alg": "none"}).rpartition(".")[0] + "."
        assert refused(verifier, forged).reason is Reason.ALGORITHM

    def test_an_empty_signature(self, verifier: TokenVerifier) -> None:
        assert refused(verifier, token().rpartition(".")[0] + ".").reason is Reason.SIGNATURE

    @pytest.mark.parametrize("key", [RSA, EC, ED])
    @pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER])
    def test_a_public_key_taken_for_an_hmac_secret(
        self, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, form: Encoding
    ) -> None:
        known_to_all = key.public_key().public_bytes(form, PublicFormat.SubjectPublicKeyInfo)
        forged = token(secret=known_to_all)
        assert refused(TokenVerifier(POLICY, [public(key)]), forged).reason is Reason.ALGORITHM
        assert refused(TokenVerifier(POLICY, [symmetric(), public(key)]), forged).reason is Reason.SIGNATURE

    def test_a_key_that_the_token_brings_along(self, verifier: TokenVerifier) -> None:
        own = b"y" * 32
        header: Json = {"jwk": {"kty": "oct", "k": encoded(own)}, "jku": "http://127.0.0.1/keys"}
        assert refused(verifier, token(header=header, secret=own)).reason is Reason.SIGNATURE

    @pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
    @pytest.mark.parametrize("value", [..., None])
    def test_a_missing_claim(self, verifier: TokenVerifier, claim: str, value: object) -> None:
        refusal = refused(verifier, token({claim: value}))
        assert refusal.reason is Reason.CLAIM_MISSING
        assert f"lacks the claim {claim}" in str(refusal)

    @pytest.mark.parametrize("audience", ["", []])
    def test_an_empty_audience_is_a_missing_one(self, verifier: TokenVerifier, audience: object) -> None:
        assert refused(verifier, token({"aud": audience})).reason is Reason.CLAIM_MISSING

    def test_a_missing_claim_that_the_settings_require(self) -> None:
        verifier = TokenVerifier(replace(POLICY, required_claims=("jti",)), [symmetric()])
        assert refused(verifier, token()).reason is Reason.CLAIM_MISSING
        assert verifier.verify(token({"jti": "1"}), NOW_MS).subject == "device-1"

    @pytest.mark.parametrize("audience", ["other", ["other"], 5, "uplinkd2", "UPLINKD"])
    def test_a_foreign_audience(self, verifier: TokenVerifier, audience: object) -> None:
        assert refused(verifier, token({"aud": audience})).reason is Reason.AUDIENCE

    @pytest.mark.parametrize("issuer", ["other", "", 5, ["uplinkd"]])
    def test_a_foreign_issuer(self, verifier: TokenVerifier, issuer: object) -> None:
        assert refused(verifier, token({"iss": issuer})).reason is Reason.ISSUER

    @pytest.mark.parametrize(
        "claims",
        [
            {"sub": ""},
            {"sub": 5},
            {"sub": "../x"},
            {"sub": "a\n"},
            {"sub": "x" * 129},
            {"sub": "a b"},
            {"role": "operator", "scope": "read", "sub": "a\x1b"},
            {"role": "operator", "scope": "read", "sub": ""},
            {"role": "operator", "scope": "read", "sub": "x" * 256},
            {"role": "operator", "scope": "read", "sub": "\ud800"},
            {"tenant": ""},
            {"tenant": "../x"},
            {"tenant": None},
            {"tenant": ["acme"]},
            {"role": "root"},
            {"role": None},
            {"role": ["device"]},
            {"scope": ["upload"]},
            {"scope": None},
            {"exp": "soon"},
            {"exp": True},
            {"exp": -1},
            {"exp": 1e300},
            {"exp": float("inf")},
            {"exp": float("nan")},
            {"nbf": "now"},
            {"iat": []},
        ],
    )
    def test_a_claim_that_is_not_what_it_should_be(self, verifier: TokenVerifier, claims: Json) -> None:
        refusal = refused(verifier, token(claims))
        assert refusal.reason is Reason.CLAIM_INVALID
        assert any(f"its claim {claim} is not" in str(refusal) for claim in claims)

    @pytest.mark.parametrize(
        "claims",
        [
            {"scope": ""},
            {"scope": "openid"},
            {"scope": "admin"},
            {"scope": "UPLOAD"},
            {"scope": "upload,read"},
            {"role": "operator"},
            {"role": "operator", "scope": "upload"},
        ],
    )
    def test_no_right_that_its_role_can_have(self, verifier: TokenVerifier, claims: Json) -> None:
        assert refused(verifier, token(claims)).reason is Reason.SCOPE
