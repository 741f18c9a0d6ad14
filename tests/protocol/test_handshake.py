"""HELLO's validity, and the proof of a device's secret. PROTOCOL.md §4."""

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest

from protocol.constants import AGENT_BYTES_MAX, FRAME_BYTES_MIN
from protocol.errors import ErrorCode
from protocol.exceptions import ProtocolError
from protocol.frames import Hello
from protocol.handshake import check_hello, device_key, prove, read_secret
from tests.support.server_rig import HELLO, SECRET_HELLO


@pytest.mark.parametrize(
    "hello",
    [
        HELLO,
        SECRET_HELLO,
        replace(HELLO, version_min=0, version_max=255),
        replace(HELLO, frame_bytes_max=FRAME_BYTES_MIN),
        replace(HELLO, features=2**32 - 1),
        replace(HELLO, agent="a" * AGENT_BYTES_MAX, agent_version="1" * AGENT_BYTES_MAX),
        replace(SECRET_HELLO, tenant="acme"),
    ],
)
def test_a_good_hello_passes(hello: Hello) -> None:
    check_hello(hello)


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (replace(HELLO, magic=b"UPLX"), ErrorCode.MAGIC_WRONG),
        (replace(HELLO, version_min=2, version_max=3), ErrorCode.VERSION_UNSUPPORTED),
        (replace(HELLO, version_min=0, version_max=0), ErrorCode.VERSION_UNSUPPORTED),
        (replace(HELLO, version_min=2, version_max=0), ErrorCode.VERSION_UNSUPPORTED),
        (replace(HELLO, frame_bytes_max=FRAME_BYTES_MIN - 1), ErrorCode.FRAME_MALFORMED),
        (replace(HELLO, frame_bytes_max=0), ErrorCode.FRAME_MALFORMED),
        (replace(HELLO, agent="a" * (AGENT_BYTES_MAX + 1)), ErrorCode.FRAME_MALFORMED),
        (replace(HELLO, agent_version="ä" * (AGENT_BYTES_MAX // 2 + 1)), ErrorCode.FRAME_MALFORMED),
        (replace(HELLO, token=None), ErrorCode.FRAME_MALFORMED),
        (replace(SECRET_HELLO, device=None), ErrorCode.FRAME_MALFORMED),
        (replace(SECRET_HELLO, nonce=None), ErrorCode.FRAME_MALFORMED),
        (replace(HELLO, credential=0), ErrorCode.CREDENTIAL_UNSUPPORTED),
        (replace(HELLO, credential=3), ErrorCode.CREDENTIAL_UNSUPPORTED),
        (replace(HELLO, credential=255), ErrorCode.CREDENTIAL_UNSUPPORTED),
    ],
)
def test_a_bad_hello_is_refused_with_its_code(hello: Hello, code: ErrorCode) -> None:
    with pytest.raises(ProtocolError) as refused:
        check_hello(hello)
    assert refused.value.code is code


def test_the_device_key_is_an_hmac_of_its_label_under_the_secret() -> None:
    secret = bytes(range(32))
    assert device_key(secret) == hmac.new(secret, b"uplinkd/1 device key", hashlib.sha256).digest()


def test_the_proof_covers_the_label_and_both_frames_in_order() -> None:
    key = device_key(bytes(range(32)))
    expected = hmac.new(key, b"uplinkd/1 proof" + b"<hello>" + b"<challenge>", hashlib.sha256).digest()
    assert prove(key, b"<hello>", b"<challenge>") == expected


@pytest.mark.parametrize("changed", [(b"hellO", b"challenge"), (b"hello", b"challengE"), (b"challenge", b"hello")])
def test_changing_either_frame_changes_the_proof(changed: tuple[bytes, bytes]) -> None:
    key = device_key(bytes(32))
    assert prove(key, b"hello", b"challenge") != prove(key, *changed)
    assert prove(key, b"hello", b"challenge") != prove(device_key(b"\x01" * 32), b"hello", b"challenge")


def test_a_printed_secret_can_be_read_back() -> None:
    printed = base64.urlsafe_b64encode(b"\xff" * 32).decode().rstrip("=")
    assert read_secret(f"{printed}\n") == b"\xff" * 32


@pytest.mark.parametrize("text", ["", "c2hvcnQ", "not base64!", "é" * 43, "A" * 42, "A" * 45])
def test_an_error_about_a_secret_does_not_show_it(text: str) -> None:
    with pytest.raises(ValueError, match="a device secret") as caught:
        read_secret(text)
    assert not text or text not in str(caught.value)
