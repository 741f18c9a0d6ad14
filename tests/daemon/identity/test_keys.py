"""Keys: each bound to one algorithm, and refused at the start when it could be misused."""

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from daemon.adapters.entropy import SystemEntropy
from daemon.identity.keys import KEYS_MAX, KeysInvalid, ensure_secret_file, load_keys, symmetric_key

SECRET = bytes(range(32))
RSA = rsa.generate_private_key(65537, 2048)
RSA_WEAK = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


def pem(path: Path, key: PublicKey) -> Path:
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def jwks(path: Path, *entries: dict[str, object]) -> Path:
    path.write_text(json.dumps({"keys": entries}))
    return path


def rsa_jwk(key: rsa.RSAPrivateKey = RSA, **more: object) -> dict[str, object]:
    return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), **more}


def ec_jwk(**more: object) -> dict[str, object]:
    return {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), **more}


def ed_jwk(**more: object) -> dict[str, object]:
    return {**OKPAlgorithm.to_jwk(ED.public_key(), as_dict=True), **more}


class Scripted:
    """Entropy whose bytes are known."""

    def bytes(self, count: int) -> bytes:
        return bytes(range(count))

    def uniform(self, low: float, high: float) -> float:
        return low


class TestSymmetric:
    def test_it_serves_hs256_alone(self) -> None:
        key = symmetric_key(SECRET)
        assert (key.algorithm, key.kid, key.jwk.key) == ("HS256", None, SECRET)

    @pytest.mark.parametrize("size", [0, 1, 16, 31])
    def test_short_ones_are_refused(self, size: int) -> None:
        with pytest.raises(KeysInvalid, match=f"has {size} bytes; use at least 32 random ones"):
            symmetric_key(bytes(size))


class TestPem:
    @pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
    def test_the_kind_of_key_decides_its_algorithm(
        self,
        tmp_path: Path,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
        algorithm: str,
    ) -> None:
        loaded = load_keys(SECRET, [pem(tmp_path / "k.pem", key.public_key())], None, [])
        assert [(each.algorithm, each.kid) for each in loaded] == [("HS256", None), (algorithm, None)]

    def test_small_rsa_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(KeysInvalid, match=r"k\.pem: RSA of 1024 bits can be forged; use 2048 or more"):
            load_keys(SECRET, [pem(tmp_path / "k.pem", RSA_WEAK.public_key())], None, [])

    @pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), ed448.Ed448PrivateKey.generate()])
    def test_other_kinds_are_refused(
        self, tmp_path: Path, key: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey
    ) -> None:
        with pytest.raises(KeysInvalid, match=r"k\.pem holds a key of another kind; use RSA, EC P-256 or Ed25519"):
            load_keys(SECRET, [pem(tmp_path / "k.pem", key.public_key())], None, [])

    def test_a_private_key_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "k.pem"
        path.write_bytes(ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(KeysInvalid, match=r"k\.pem holds a private key"):
            load_keys(SECRET, [path], None, [])

    def test_what_is_no_key_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "k.pem"
        path.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
        with pytest.raises(KeysInvalid, match=r"k\.pem is no public key in PEM"):
            load_keys(SECRET, [path], None, [])

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(KeysInvalid, match=r"none\.pem cannot be read: No such file"):
            load_keys(SECRET, [tmp_path / "none.pem"], None, [])


class TestJwks:
    def test_each_key_has_its_kid_and_algorithm(self, tmp_path: Path) -> None:
        path = jwks(tmp_path / "j", rsa_jwk(kid="a", alg="RS256"), ec_jwk(kid="b", use="sig"), ed_jwk())
        loaded = load_keys(SECRET, [], path, [])[1:]
        assert [(key.algorithm, key.kid) for key in loaded] == [("RS256", "a"), ("ES256", "b"), ("EdDSA", None)]

    @pytest.mark.parametrize(
        "other",
        [
            rsa_jwk(use="enc"),
            rsa_jwk(alg="RSA-OAEP"),
            rsa_jwk(alg="none"),
            rsa_jwk(alg="HS256"),
            rsa_jwk(key_ops=["encrypt"]),
            rsa_jwk(key_ops="verify"),
            {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
            {"kty": "quantum"},
            {"kty": ["RSA"]},
            {},
        ],
    )
    def test_keys_for_other_uses_are_passed_over(self, tmp_path: Path, other: dict[str, object]) -> None:
        path = jwks(tmp_path / "j", other, ed_jwk(kid="mine"))
        assert [key.kid for key in load_keys(SECRET, [], path, [])[1:]] == ["mine"]

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"kty": "oct", "k": "AAAA"}, "holds a secret or private key"),
            (ed_jwk(d="AAAA"), "holds a secret or private key"),
            (rsa_jwk(RSA_WEAK, kid="w"), "key 'w': RSA of 1024 bits"),
            (rsa_jwk(kid=5), '"kid" is not text'),
            ({"kty": "RSA"}, "key 0: the key is damaged"),
            ({"kty": "RSA", "n": 5, "e": "AQAB"}, "the key is damaged"),
            ({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}, "the key is damaged"),
            ({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, "the key is damaged"),
            (rsa_jwk(use="enc"), "holds no key for RS256, ES256 or EdDSA"),
        ],
    )
    def test_what_must_not_be_trusted_is_refused(self, tmp_path: Path, entry: dict[str, object], message: str) -> None:
        with pytest.raises(KeysInvalid, match=message):
            load_keys(SECRET, [], jwks(tmp_path / "j", entry), [])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ("[]", 'no list "keys"'),
            ('{"keys": 5}', 'no list "keys"'),
            ('{"keys": [5]}', 'no list "keys"'),
            ('{"keys": []}', "holds no key"),
        ],
    )
    def test_what_is_no_jwk_set_is_refused(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "j"
        path.write_text(content)
        with pytest.raises(KeysInvalid, match=message):
            load_keys(SECRET, [], path, [])

    def test_no_message_shows_a_key(self, tmp_path: Path) -> None:
        hidden = base64.urlsafe_b64encode(b"x" * 32).decode()
        with pytest.raises(KeysInvalid) as caught:
            load_keys(SECRET, [], jwks(tmp_path / "j", {"kty": "oct", "k": hidden}), [])
        assert hidden not in str(caught.value)


class TestAlgorithms:
    def test_those_named_are_kept(self, tmp_path: Path) -> None:
        paths = [pem(tmp_path / "a", RSA.public_key()), pem(tmp_path / "b", ED.public_key())]
        assert [key.algorithm for key in load_keys(SECRET, paths, None, ["EdDSA"])] == ["EdDSA"]

    def test_one_without_a_key_is_refused(self) -> None:
        with pytest.raises(KeysInvalid, match=r"auth\.algorithms names ES256, which no key serves"):
            load_keys(SECRET, [], None, ["ES256", "HS256"])

    def test_too_many_keys_are_refused(self, tmp_path: Path) -> None:
        path = jwks(tmp_path / "j", *[ed_jwk(kid=str(index)) for index in range(KEYS_MAX)])
        with pytest.raises(KeysInvalid, match=f"{KEYS_MAX + 1} keys are configured"):
            load_keys(SECRET, [], path, [])


class TestSecretFile:
    def test_it_is_made_when_there_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "secret"
        secret = ensure_secret_file(path, Scripted())
        assert secret == bytes(range(32))
        assert path.read_text() == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]

    def test_it_is_kept_when_there_is_one(self, tmp_path: Path) -> None:
        path = tmp_path / "secret"
        first = ensure_secret_file(path, SystemEntropy())
        assert ensure_secret_file(path, SystemEntropy()) == first

    def test_two_are_never_alike(self, tmp_path: Path) -> None:
        entropy = SystemEntropy()
        assert ensure_secret_file(tmp_path / "a", entropy) != ensure_secret_file(tmp_path / "b", entropy)

    def test_of_two_daemons_at_once_one_secret_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "secret"
        winner = ensure_secret_file(path, Scripted())
        monkeypatch.setattr(Path, "exists", lambda _path: False)  # as seen before the other made it
        assert ensure_secret_file(path, SystemEntropy()) == winner
        assert list(tmp_path.iterdir()) == [path]

    def test_it_is_durable_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "secret"
        seen: list[tuple[bool, bool]] = []
        fsync = os.fsync

        def watched(descriptor: int) -> None:
            fsync(descriptor)
            seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))

        monkeypatch.setattr(os, "fsync", watched)
        ensure_secret_file(path, SystemEntropy())
        assert seen == [(False, False), (True, True)]

    @pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o602, 0o601])
    def test_one_that_others_can_reach_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "secret"
        ensure_secret_file(path, SystemEntropy())
        path.chmod(mode)
        with pytest.raises(KeysInvalid, match=f"has mode 0{mode:o}, so others may have read or changed it"):
            ensure_secret_file(path, SystemEntropy())

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
    def test_one_that_its_group_may_read_is_taken(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "secret"
        secret = ensure_secret_file(path, SystemEntropy())
        path.chmod(mode)
        assert ensure_secret_file(path, SystemEntropy()) == secret

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "holds 0 bytes, at least 32 are needed"),
            (base64.urlsafe_b64encode(bytes(31)).decode(), "holds 31 bytes, at least 32 are needed"),
            ("not base64!", "is not base64url"),
            ("é" * 43, "is not base64url"),
            ("A", "is not base64url"),
        ],
    )
    def test_short_or_damaged_ones_are_refused(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "secret"
        path.touch(mode=0o600)
        path.write_text(content)
        with pytest.raises(KeysInvalid, match=message) as caught:
            ensure_secret_file(path, SystemEntropy())
        assert not content or content not in str(caught.value)

    @pytest.mark.parametrize("padding", ["", "=", "=\n"])
    def test_longer_ones_with_or_without_padding_are_taken(self, tmp_path: Path, padding: str) -> None:
        path = tmp_path / "secret"
        path.touch(mode=0o600)
        secret = bytes(range(200, 247))
        path.write_text(base64.urlsafe_b64encode(secret).decode().rstrip("=") + padding)
        assert ensure_secret_file(path, SystemEntropy()) == secret

    def test_a_missing_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(KeysInvalid, match=r"cannot be made or read: No such file .*; check its directory"):
            ensure_secret_file(tmp_path / "none" / "secret", SystemEntropy())
