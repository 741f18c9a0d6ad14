"""Tokens and secrets."""

import base64

import pytest

from device.credentials import Offer, SecretCredentials, TokenCredentials
from protocol.constants import CredentialKind
from protocol.handshake import device_key, prove

SECRET = bytes(range(32))


class Tokens:
    """A callback with a new token each time."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> str:
        self.count += 1
        return f"token-{self.count}"


async def test_a_fixed_token_has_no_successor() -> None:
    credentials = TokenCredentials("fixed")
    assert await credentials.offer() == Offer(CredentialKind.TOKEN, token="fixed")
    assert not credentials.refreshable
    assert credentials.prove(b"hello", b"challenge") is None
    assert not credentials.discard(refused=False)
    assert not credentials.discard(refused=True)
    with pytest.raises(TypeError):
        await credentials.refresh()


async def test_a_callback_is_asked_when_a_new_token_is_needed() -> None:
    credentials = TokenCredentials(Tokens())
    assert credentials.refreshable
    assert (await credentials.offer()).token == "token-1"
    assert (await credentials.offer()).token == "token-1"
    assert await credentials.refresh() == "token-2"
    assert (await credentials.offer()).token == "token-2"
    assert credentials.discard(refused=False)
    assert (await credentials.offer()).token == "token-3"


async def test_a_refused_token_is_replaced_unless_it_was_new() -> None:
    credentials = TokenCredentials(Tokens())
    await credentials.offer()
    assert not credentials.discard(refused=True)
    await credentials.offer()
    await credentials.offer()
    assert credentials.discard(refused=True)
    await credentials.offer()
    assert not credentials.discard(refused=True)


async def test_a_secret_is_proven_not_sent() -> None:
    credentials = SecretCredentials("cam-1", SECRET, "acme", lambda: b"n" * 32)
    offer = await credentials.offer()
    assert offer == Offer(CredentialKind.DEVICE_SECRET, tenant="acme", device="cam-1", nonce=b"n" * 32)
    assert credentials.prove(b"hello", b"challenge") == prove(device_key(SECRET), b"hello", b"challenge")
    assert credentials.discard(refused=False)
    assert not credentials.discard(refused=True)
    assert not credentials.refreshable
    with pytest.raises(TypeError):
        await credentials.refresh()


async def test_each_connection_has_its_own_nonce() -> None:
    credentials = SecretCredentials("cam-1", SECRET)
    nonces = {(await credentials.offer()).nonce for _ in range(3)}
    assert len(nonces) == 3
    assert all(nonce is not None and len(nonce) == 32 for nonce in nonces)


async def test_a_secret_may_be_given_as_it_was_printed() -> None:
    printed = base64.urlsafe_b64encode(SECRET).decode().rstrip("=")
    by_text, by_bytes = SecretCredentials("cam-1", f"{printed}\n"), SecretCredentials("cam-1", SECRET)
    assert by_text.prove(b"hello", b"challenge") == by_bytes.prove(b"hello", b"challenge")
    with pytest.raises(ValueError, match="a device secret has 32 bytes"):
        SecretCredentials("cam-1", "c2hvcnQ")
