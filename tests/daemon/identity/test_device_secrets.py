"""Device secrets: what one looks like, and that it alone proves itself against its key."""

import base64
import hashlib
import hmac

import pytest

from daemon.adapters.entropy import SystemEntropy
from daemon.identity.device_secrets import make_secret, verify_secret
from protocol.handshake import device_key, read_secret

SECRET = bytes(range(32))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_secret_is_256_bits_as_base64url() -> None:
    text = make_secret(SystemEntropy())
    assert len(text) == 43
    assert len(read_secret(text)) == 32
    assert make_secret(SystemEntropy()) != text


def test_it_is_proven_against_its_derived_key() -> None:
    text = make_secret(SystemEntropy())
    key = device_key(read_secret(text))
    assert verify_secret(key, text)
    assert not verify_secret(key, make_secret(SystemEntropy()))


def test_the_derived_key_is_the_hmac_of_its_label() -> None:
    expected = hmac.new(SECRET, b"uplinkd/1 device key", hashlib.sha256).digest()
    assert verify_secret(expected, encoded(SECRET))


@pytest.mark.parametrize("text", ["", "x", "not base64!", encoded(bytes(31)), encoded(bytes(33)), "é" * 43])
def test_what_is_no_secret_proves_nothing(text: str) -> None:
    assert not verify_secret(device_key(SECRET), text)
    with pytest.raises(ValueError, match="a device secret"):
        read_secret(text)
