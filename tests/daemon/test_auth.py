"""Identity: tokens that are believed, and every way in which one is not."""

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from daemon.auth import (
    HEADERS_MAX,
    TOKEN_CHARS_MAX,
    Identity,
    Kind,
    Policy,
    Reason,
    Scope,
    TokenIssuer,
    TokenRefused,
    TokenVerifier,
)

NOW_S = 1_700_000_000
NOW_MS = NOW_S * 1000
SECRET = bytes(range(32))
POLICY = Policy(
    issuer="uplinkd",
    audience="uplinkd",
    leeway_s=30,
    required_claims=(),
    tenant_default="default",
    tenant_claim="tenant",
    cache_size=100,
)
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
CLAIMS = {"iss": "uplinkd", "aud": "uplinkd", "sub": "device-1", "exp": NOW_S + 600}

Json = dict[str, object]


@dataclass(frozen=True)
class StoredKey:
    algorithm: str
    jwk: jwt.PyJWK
    kid: str | None = None


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def symmetric(secret: bytes = SECRET) -> StoredKey:
    return StoredKey("HS256", jwt.PyJWK({"kty": "oct", "k": encoded(secret)}, "HS256"))


def public(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, kid: str | None = None
) -> StoredKey:
    if isinstance(key, rsa.RSAPrivateKey):
        return StoredKey("RS256", jwt.PyJWK(RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "RS256"), kid)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return StoredKey("ES256", jwt.PyJWK(ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "ES256"), kid)
    return StoredKey("EdDSA", jwt.PyJWK(OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "EdDSA"), kid)


def token(claims: Json | None = None, header: Json | None = None, secret: bytes = SECRET) -> str:
    """A token signed with HS256 by hand, so that nothing about it is made right; a claim of `...` is left out."""
    kept = {name: value for name, value in {**CLAIMS, **(claims or {})}.items() if value is not ...}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", **(header or {})}, kept))
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"


@pytest.fixture
def verifier() -> TokenVerifier:
    return TokenVerifier(POLICY, [symmetric()])


def refused(verifier: TokenVerifier, text: str, now_ms: int = NOW_MS) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        verifier.verify(text, now_ms)
    for part in text.split("."):
        assert len(part) < 10 or part not in str(caught.value)
    return caught.value


def watched(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[str]:
    """The tokens that the function was given from now on, whose name is `name`."""
    seen: list[str] = []
    whole: Callable[..., object] = getattr(owner, name)

    def watch(*given: object, **named: object) -> object:
        seen.extend(each for each in given if isinstance(each, str))
        return whole(*given, **named)

    monkeypatch.setattr(owner, name, watch)
    return seen


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

    def test_one_audience_of_several_is_enough(self, verifier: TokenVerifier) -> None:
        assert verifier.verify(token({"aud": ["other", "uplinkd"]}), NOW_MS).subject == "device-1"

    def test_fractions_of_seconds_are_taken(self, verifier: TokenVerifier) -> None:
        assert verifier.verify(token({"exp": NOW_S + 0.5}), NOW_MS).expires_s == NOW_S


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

    def test_without_kid_every_key_of_the_algorithm_is_tried(self) -> None:
        keys = [ed25519.Ed25519PrivateKey.generate() for _ in range(3)]
        verifier = TokenVerifier(POLICY, [public(key, str(index)) for index, key in enumerate(keys)])
        for key in keys:
            assert verifier.verify(jwt.encode(CLAIMS, key, "EdDSA"), NOW_MS).subject == "device-1"
        assert refused(verifier, jwt.encode(CLAIMS, ED, "EdDSA")).reason is Reason.SIGNATURE

    def test_a_claim_is_judged_by_the_first_key_that_fits(self) -> None:
        verifier = TokenVerifier(POLICY, [public(ED, "a"), public(ed25519.Ed25519PrivateKey.generate(), "b")])
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


class TestIssuer:
    @pytest.mark.parametrize(
        ("kind", "scopes"),
        [
            (Kind.DEVICE, frozenset({Scope.UPLOAD, Scope.READ})),
            (Kind.OPERATOR, frozenset({Scope.READ, Scope.DELETE, Scope.ADMIN})),
        ],
    )
    def test_what_it_issues_is_believed(self, verifier: TokenVerifier, kind: Kind, scopes: frozenset[Scope]) -> None:
        identity = Identity("acme", "x-1", kind, scopes, None)
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
