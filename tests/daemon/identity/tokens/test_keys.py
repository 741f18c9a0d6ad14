"""Which key a token is checked with."""

import base64
import hmac

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from daemon.identity.tokens import (
    HEADERS_MAX,
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
    public,
    refused,
    symmetric,
    token,
    watched,
)


class TestKeys:
    @pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
    def test_each_kind_verifies(
        self, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, algorithm: str
    ) -> None:
        verifier = TokenVerifier(POLICY, [symmetric(), public(key)])
        assert verifier.verify(jwt.encode(CLAIMS, key, algorithm), NOW_MS).subject == "device-1"

    def test_kid_chooses_among_keys(self) -> None:
        other = ed25519.Ed25519PrivateKey.generate()
        verifier = TokenVerifier(POLICY, [public(ED, "a"), public(other, "b")])
        assert verifier.verify(jwt.encode(CLAIMS, other, "EdDSA", {"kid": "b"}), NOW_MS).subject == "device-1"
        crossed = jwt.encode(CLAIMS, other, "EdDSA", {"kid": "a"})
        assert refused(verifier, crossed).reason is Reason.SIGNATURE

    def test_an_unknown_kid(self) -> None:
        verifier = TokenVerifier(POLICY, [public(ED, "a")])
        refusal = refused(verifier, jwt.encode(CLAIMS, ED, "EdDSA", {"kid": "z"}))
        assert refusal.reason is Reason.KEY_UNKNOWN
        assert "update auth.jwks_file and reload" in str(refusal)

    def test_a_key_without_kid_serves_any(self) -> None:
        verifier = TokenVerifier(POLICY, [public(ED)])
        assert verifier.verify(jwt.encode(CLAIMS, ED, "EdDSA", {"kid": "z"}), NOW_MS).subject == "device-1"

    def test_without_kid_every_key_that_has_none_is_tried(self) -> None:
        keys = [ed25519.Ed25519PrivateKey.generate() for _ in range(3)]
        verifier = TokenVerifier(POLICY, [*(public(key) for key in keys), public(ED, "a")])
        for key in keys:
            assert verifier.verify(jwt.encode(CLAIMS, key, "EdDSA"), NOW_MS).subject == "device-1"
        assert refused(verifier, jwt.encode(CLAIMS, ED, "EdDSA")).reason is Reason.SIGNATURE

    def test_without_kid_the_only_key_of_the_algorithm_is_tried(self) -> None:
        verifier = TokenVerifier(POLICY, [symmetric(), public(ED, "a")])
        assert verifier.verify(jwt.encode(CLAIMS, ED, "EdDSA"), NOW_MS).subject == "device-1"

    def test_among_several_keys_with_a_kid_a_token_must_have_one(self) -> None:
        verifier = TokenVerifier(POLICY, [public(ED, "a"), public(ed25519.Ed25519PrivateKey.generate(), "b")])
        refusal = refused(verifier, jwt.encode(CLAIMS, ED, "EdDSA"))
        assert refusal.reason is Reason.KEY_UNKNOWN
        assert "it has no kid" in str(refusal)

    def test_a_claim_is_judged_by_the_first_key_that_fits(self) -> None:
        verifier = TokenVerifier(POLICY, [public(ED), public(ed25519.Ed25519PrivateKey.generate())])
        assert refused(verifier, jwt.encode({**CLAIMS, "aud": "x"}, ED, "EdDSA")).reason is Reason.AUDIENCE

    def test_an_extension_that_is_demanded_is_not_known(self, verifier: TokenVerifier) -> None:
        header = base64.urlsafe_b64encode(b'{"alg":"HS256","crit":["x"],"x":1}').rstrip(b"=")
        signed = header + b"." + token().split(".")[1].encode()
        proof = base64.urlsafe_b64encode(hmac.digest(SECRET, signed, "sha256")).rstrip(b"=")
        assert refused(verifier, (signed + b"." + proof).decode()).reason is Reason.MALFORMED

    def test_a_header_that_is_known_vouches_for_nothing(self, verifier: TokenVerifier) -> None:
        verifier.verify(token(), NOW_MS)
        header, payload, proof = token().split(".")
        other = token({"sub": "device-2"}).split(".")[1]
        assert refused(verifier, f"{header}.{other}.{proof}").reason is Reason.SIGNATURE
        assert refused(verifier, f"{header}.{payload}.").reason is Reason.SIGNATURE
        assert refused(verifier, header).reason is Reason.MALFORMED
        assert refused(verifier, f"{header}.{payload}.!!!!").reason is Reason.MALFORMED

    def test_a_header_is_read_once_for_all_that_are_good(
        self, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = watched(monkeypatch, jwt, "get_unverified_header")
        forged = token({**CLAIMS, "sub": "device-0"}, secret=bytes(32))
        good = [token({**CLAIMS, "sub": f"device-{number}"}) for number in range(1, 4)]
        refused(verifier, forged)
        assert [verifier.verify(text, NOW_MS).subject for text in good] == ["device-1", "device-2", "device-3"]
        assert read == [forged, good[0]]

    def test_a_header_is_judged_anew_by_new_keys(self, verifier: TokenVerifier) -> None:
        verifier.verify(token(), NOW_MS)
        verifier.reload(POLICY, [public(RSA, "RS256")])
        assert refused(verifier, token()).reason is Reason.ALGORITHM

    def test_no_more_headers_are_remembered_than_issuers_may_have(
        self, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(HEADERS_MAX):
            verifier.verify(token(header={"x": number}), NOW_MS)
        read = watched(monkeypatch, jwt, "get_unverified_header")
        for number in (0, HEADERS_MAX, HEADERS_MAX):
            claims = {**CLAIMS, "sub": f"device-{number}-{len(read)}"}
            verifier.verify(token(claims, header={"x": number}), NOW_MS)
        assert len(read) == 2

    @pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"\xff", b"[" * 5000])
    def test_a_payload_that_is_no_object_is_malformed_though_signed(
        self, verifier: TokenVerifier, payload: bytes
    ) -> None:
        assert refused(verifier, jwt.PyJWS().encode(payload, SECRET, "HS256")).reason is Reason.MALFORMED

    def test_without_keys_nothing_is_accepted(self) -> None:
        assert refused(TokenVerifier(POLICY, []), token()).reason is Reason.ALGORITHM
