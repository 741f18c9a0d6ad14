"""The server's handshake: what is reported, what waits, and what is refused. PROTOCOL.md §4."""

from dataclasses import replace

import pytest

from protocol import codec, frames
from protocol.constants import FRAME_BYTES_MIN, Action, FrameType
from protocol.errors import ErrorCode
from protocol.events import ConnectionFailed, HelloReceived, OpenRequested, ProofReceived
from protocol.exceptions import LocalProtocolError
from protocol.state import ConnectionState
from tests.support.server_outcomes import failure, received
from tests.support.server_rig import (
    HELLO,
    SECRET_HELLO,
    ServerRig,
    chunk,
    frame,
    open_frame,
    opened_of,
    welcome_of,
    welcomed,
)


@pytest.mark.parametrize("sizes", [(), (1,) * 500])
def test_hello_is_reported_as_sent_and_input_waits_for_the_answer(sizes: tuple[int, ...]) -> None:
    rig = ServerRig()
    raw = codec.encode(HELLO)
    assert rig.feed(raw, sizes) == [HelloReceived(HELLO, raw)]
    assert rig.connection.is_held
    assert rig.feed(codec.encode(frames.Ping(1))) == []
    rig.connection.welcome(welcome_of())
    assert rig.resume() == []
    assert rig.sent() == [(0, welcome_of()), (0, frames.Pong(1))]
    assert rig.connection.state is ConnectionState.OPEN


def test_a_secret_is_challenged_and_proven() -> None:
    rig = ServerRig()
    raw = codec.encode(SECRET_HELLO)
    assert rig.feed(raw) == [HelloReceived(SECRET_HELLO, raw)]
    challenge = rig.connection.challenge(bytes(32))
    assert challenge == codec.encode(frames.Challenge(bytes(32)))
    assert rig.resume() == []
    assert rig.sent() == [(0, frames.Challenge(bytes(32)))]
    proof = codec.encode(frames.Proof(b"\x07" * 32))
    assert rig.feed(proof + open_frame(1)) == [ProofReceived(b"\x07" * 32)]
    assert rig.connection.is_held
    rig.connection.welcome(welcome_of())
    (opened,) = rig.resume()
    assert isinstance(opened, OpenRequested)


def test_a_device_with_a_secret_sends_nothing_between_hello_and_challenge() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(SECRET_HELLO) + open_frame(1))
    rig.connection.challenge(bytes(32))
    assert failure(rig.resume()) is ErrorCode.FRAME_UNEXPECTED


@pytest.mark.parametrize("sizes", [(), (1,) * 500])
def test_a_device_with_a_token_may_send_open_and_chunks_right_after_hello(sizes: tuple[int, ...]) -> None:
    rig = ServerRig()
    hello, *none = rig.feed(codec.encode(HELLO) + open_frame(1, size=4) + chunk(1, 0, b"data"), sizes)
    assert isinstance(hello, HelloReceived)
    assert none == []
    rig.connection.welcome(welcome_of())
    (opened,) = rig.resume(sizes)
    assert isinstance(opened, OpenRequested)
    assert rig.connection.is_held == (not rig.unfed), "the chunk waits for the answer to OPEN"
    rig.connection.opened(1, opened_of(), 4)
    assert rig.resume(sizes) == [received(1, 0, b"data")]
    assert rig.sent() == [(0, welcome_of()), (1, opened_of())]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ErrorCode.MAGIC_WRONG),
        (b"\x16\x03\x01", ErrorCode.MAGIC_WRONG),
        (b"\x00", ErrorCode.MAGIC_WRONG),
        (frame(0xF0), ErrorCode.MAGIC_WRONG),
        (open_frame(1), ErrorCode.MAGIC_WRONG),
        (codec.encode(replace(HELLO, magic=b"UPLX")), ErrorCode.MAGIC_WRONG),
        (codec.encode(replace(HELLO, version_min=2, version_max=9)), ErrorCode.VERSION_UNSUPPORTED),
        (codec.encode(replace(HELLO, version_min=0, version_max=0)), ErrorCode.VERSION_UNSUPPORTED),
        (codec.encode(replace(HELLO, frame_bytes_max=63)), ErrorCode.FRAME_MALFORMED),
        (codec.encode(replace(HELLO, credential=9)), ErrorCode.CREDENTIAL_UNSUPPORTED),
        (codec.encode(replace(HELLO, token=None)), ErrorCode.FRAME_MALFORMED),
        (codec.encode(HELLO, stream=1), ErrorCode.FRAME_MALFORMED),
        (codec.encode(HELLO)[:-1], None),
        (frame(FrameType.HELLO, b"UPLK"), ErrorCode.FRAME_MALFORMED),
        (frame(FrameType.HELLO, b"UPLK", flags=1), ErrorCode.FRAME_MALFORMED),
        (frame(FrameType.HELLO, bytes(8185))[:8], ErrorCode.FRAME_TOO_LARGE),
        (codec.PREFIX.pack(FrameType.HELLO, 0, 0, 2**32 - 1), ErrorCode.FRAME_TOO_LARGE),
    ],
)
@pytest.mark.parametrize("sizes", [(), (1,) * 500], ids=["whole", "byte by byte"])
def test_an_invalid_handshake_is_refused(raw: bytes, code: ErrorCode | None, sizes: tuple[int, ...]) -> None:
    rig = ServerRig()
    events = rig.feed(raw, sizes)
    if code is None:
        assert events == [], "the rest of a partial frame is awaited"
        return
    assert failure(events) is code
    ((stream, refused),) = rig.sent()
    assert stream == 0
    assert isinstance(refused, frames.Refused)
    assert (refused.code, refused.action, refused.version_min, refused.version_max) == (code, code.action, 1, 1)
    assert rig.connection.state is ConnectionState.CLOSING


def test_the_caller_may_refuse_with_its_own_reason() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(HELLO))
    rig.connection.fail(ErrorCode.TOO_MANY_CONNECTIONS, "100 are open", wait_ms=700)
    refused = frames.Refused(ErrorCode.TOO_MANY_CONNECTIONS, Action.WAIT, 1, 1, 700, "100 are open")
    assert rig.sent() == [(0, refused)]
    assert rig.connection.take_events() == [ConnectionFailed(ErrorCode.TOO_MANY_CONNECTIONS, "100 are open")]
    assert rig.resume() == []


def test_a_device_with_small_frames_gets_no_explanation() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(replace(HELLO, frame_bytes_max=FRAME_BYTES_MIN)))
    rig.connection.fail(ErrorCode.UNAUTHENTICATED, "x" * 100)
    ((_, refused),) = rig.sent()
    assert isinstance(refused, frames.Refused)
    assert refused.text is None


@pytest.mark.parametrize("answer", ["welcome", "challenge"])
def test_answering_before_hello_is_a_caller_bug(answer: str) -> None:
    connection = ServerRig().connection
    with pytest.raises(LocalProtocolError):
        connection.welcome(welcome_of()) if answer == "welcome" else connection.challenge(bytes(32))


def test_a_second_hello_is_unexpected() -> None:
    assert failure(welcomed().feed(codec.encode(HELLO))) is ErrorCode.FRAME_UNEXPECTED
