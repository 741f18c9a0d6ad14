"""The device's end: what it sends and accepts, and how it counts its window. PROTOCOL.md §3 to §15."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocol import codec, frames
from protocol.client import ClientConnection
from protocol.constants import (
    CHUNK_OVERHEAD_BYTES,
    SIZE_UNKNOWN,
    STREAM_MAX,
    Action,
    Disposition,
    Feature,
    FrameType,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.events import Acknowledged, Answered, Challenged, ClientEvent, Failed, ServerMisbehaved, Welcomed
from protocol.exceptions import LocalProtocolError
from protocol.ranges import Span
from protocol.state import CLIENT_ACCEPTS, ConnectionState
from tests.support.server_rig import HELLO, SECRET_HELLO, frame, opened_of, welcome_of

OPEN = frames.Open(Disposition.RESUME_OR_CREATE, SIZE_UNKNOWN, "log.bin")
WELCOME = replace(welcome_of(), window_bytes=2000, chunk_bytes_max=100)

REFUSED = frames.Refused(ErrorCode.UNAUTHENTICATED, Action.REAUTHENTICATE, 1, 1, 0, "no")
ERROR = frames.Error(ErrorCode.DISK_FULL, Action.WAIT, 5000, 7, "full")

FeedSizes = Callable[[ClientConnection, bytes], list[ClientEvent]]


def whole(client: ClientConnection, data: bytes) -> list[ClientEvent]:
    return client.receive(data)


def byte_by_byte(client: ClientConnection, data: bytes) -> list[ClientEvent]:
    return [event for at in range(len(data)) for event in client.receive(data[at : at + 1])]


@pytest.fixture(params=[whole, byte_by_byte], ids=["whole", "byte by byte"])
def feed(request: pytest.FixtureRequest) -> FeedSizes:
    chosen = request.param
    assert chosen is whole or chosen is byte_by_byte
    return whole if chosen is whole else byte_by_byte


def welcomed(hello: frames.Hello = HELLO) -> ClientConnection:
    client = ClientConnection(hello)
    assert client.receive(codec.encode(WELCOME)) == [Welcomed(WELCOME)]
    client.data_to_send()
    return client


def sending(*chunks: tuple[int, bytes]) -> ClientConnection:
    client = welcomed()
    assert client.open(OPEN) == 1
    for start, data in chunks:
        client.chunk(1, start, data)
    client.data_to_send()
    return client


def left(*under_way: int) -> int:
    """What the next chunk may have while chunks of these sizes are under way."""
    return WELCOME.window_bytes - sum(under_way) - (len(under_way) + 1) * CHUNK_OVERHEAD_BYTES


# Handshake.


def test_a_connection_starts_with_hello() -> None:
    client = ClientConnection(HELLO)
    assert client.hello_raw == codec.encode(HELLO)
    assert client.data_to_send() == [client.hello_raw]
    assert client.data_to_send() == []
    assert client.state is ConnectionState.START
    assert client.window_left_bytes == 0


def test_welcome_states_the_features_and_limits_in_force(feed: FeedSizes) -> None:
    client = ClientConnection(HELLO)
    assert feed(client, codec.encode(WELCOME)) == [Welcomed(WELCOME)]
    assert client.state is ConnectionState.OPEN
    assert client.welcome == WELCOME
    assert client.window_left_bytes == left()


def test_a_challenge_is_answered_with_a_proof(feed: FeedSizes) -> None:
    client = ClientConnection(SECRET_HELLO)
    challenge = codec.encode(frames.Challenge(bytes(32)))
    assert feed(client, challenge) == [Challenged(bytes(32), challenge)]
    client.data_to_send()
    client.prove(b"\x01" * 32)
    assert client.data_to_send() == [codec.encode(frames.Proof(b"\x01" * 32))]
    assert feed(client, codec.encode(WELCOME)) == [Welcomed(WELCOME)]


@pytest.mark.parametrize("before", [b"", codec.encode(frames.Challenge(bytes(32)))], ids=["at once", "challenged"])
def test_a_refusal_ends_the_connection(before: bytes, feed: FeedSizes) -> None:
    client = ClientConnection(SECRET_HELLO)
    client.receive(before)
    assert feed(client, codec.encode(REFUSED)) == [Failed(0, REFUSED)]
    assert client.state is ConnectionState.CLOSING
    assert client.receive(codec.encode(WELCOME)) == []


def test_a_refusal_after_the_proof_ends_the_connection() -> None:
    client = ClientConnection(SECRET_HELLO)
    client.receive(codec.encode(frames.Challenge(bytes(32))))
    client.prove(bytes(32))
    assert client.receive(codec.encode(REFUSED)) == [Failed(0, REFUSED)]


def test_a_proof_without_a_challenge_is_a_caller_bug() -> None:
    with pytest.raises(LocalProtocolError):
        ClientConnection(SECRET_HELLO).prove(bytes(32))


def test_a_device_that_requires_features_notices_a_stripped_hello() -> None:
    client = ClientConnection(HELLO, features_required=Feature.CHUNK_CRC32C)
    (event,) = client.receive(codec.encode(replace(WELCOME, features=Feature.SHA256)))
    assert isinstance(event, ServerMisbehaved)
    assert event.code is ErrorCode.VERSION_UNSUPPORTED
    assert client.state is ConnectionState.CLOSING
    assert client.welcome is None


def test_a_server_that_offers_the_required_features_is_accepted() -> None:
    client = ClientConnection(HELLO, features_required=Feature.CHUNK_CRC32C)
    assert client.receive(codec.encode(WELCOME)) == [Welcomed(WELCOME)]


# Requests.


def test_a_device_with_a_token_opens_an_upload_before_welcome() -> None:
    client = ClientConnection(HELLO)
    client.data_to_send()
    stream = client.open(OPEN)
    client.chunk(stream, 0, b"data")
    assert client.data_to_send() == [
        codec.encode(OPEN, 1),
        codec.encode_chunk_header(FrameType.CHUNK, 1, 0, b"data"),
        b"data",
    ]
    client.receive(codec.encode(WELCOME))
    assert client.window_left_bytes == left(4), "bytes sent before WELCOME count"


def test_stream_numbers_only_rise() -> None:
    client = welcomed()
    assert [client.open(OPEN) for _ in range(3)] == [1, 2, 3]
    client.receive(codec.encode(ERROR, 2))
    assert client.open(OPEN) == 4


def test_a_connection_runs_out_of_stream_numbers() -> None:
    client = welcomed()
    for _ in range(STREAM_MAX):
        client.open(OPEN)
    with pytest.raises(LocalProtocolError):
        client.open(OPEN)


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
def test_a_chunk_goes_out_in_the_form_asked_for(kind: FrameType) -> None:
    client = sending()
    client.chunk(1, 5, memoryview(b"data"), kind)
    assert client.data_to_send() == [codec.encode_chunk_header(kind, 1, 5, b"data"), b"data"]
    assert client.window_left_bytes == left(4)


def test_the_data_of_a_chunk_is_not_copied() -> None:
    client = sending()
    data = memoryview(bytearray(b"data"))
    client.chunk(1, 0, data)
    assert client.data_to_send()[1] is data


def test_chunks_need_an_open_stream_and_the_servers_limit() -> None:
    client = sending()
    client.chunk(1, 0, bytes(100))
    with pytest.raises(LocalProtocolError):
        client.chunk(1, 100, bytes(101))
    with pytest.raises(LocalProtocolError):
        client.chunk(2, 0, b"x")
    assert client.window_left_bytes == left(100)


def test_a_chunk_that_cannot_be_encoded_uses_no_window() -> None:
    client = sending()
    with pytest.raises(LocalProtocolError):
        client.chunk(1, 0, b"")
    assert client.data_to_send() == []
    assert client.window_left_bytes == left()


def test_other_requests_are_sent_unchanged() -> None:
    client = sending()
    client.finish(1, frames.Finish(4))
    client.abort(1)
    client.query("log.bin", 9)
    client.refresh("d.e.f")
    client.ping(3)
    assert client.data_to_send() == [
        codec.encode(frames.Finish(4), 1),
        codec.encode(frames.Abort(), 1),
        codec.encode(frames.Query("log.bin"), 9),
        codec.encode(frames.Refresh("d.e.f")),
        codec.encode(frames.Ping(3)),
    ]


# Answers.


@pytest.mark.parametrize(
    ("stream", "answer"),
    [
        (1, opened_of(10)),
        (1, opened_of(10, UploadState.COMPLETE)),
        (1, frames.Verifying(100)),
        (1, frames.Finished(42, 10, 0xDEADBEEF, bytes(32))),
        (1, frames.Aborted(42)),
        (1, frames.Nack(ErrorCode.CHUNK_CORRUPT, 0, 9, 0, "again")),
        (8, frames.Status(0, UploadState.NONE, 0)),
        (8, frames.Status(42, UploadState.RECEIVING, 10, 50, 60, ranges=(Span(20, 30), Span(40, 41)))),
        (0, frames.Refreshed(3600)),
        (0, frames.Goaway(ErrorCode.SHUTTING_DOWN, 1500, "bye")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_answers_become_events(stream: int, answer: frames.Opened, feed: FeedSizes) -> None:
    client = sending()
    assert feed(client, codec.encode(answer, stream)) == [Answered(stream, answer)]
    assert client.state is ConnectionState.OPEN


def test_an_ack_frees_each_chunk_once_it_covers_all_of_it(feed: FeedSizes) -> None:
    client = sending((0, bytes(100)), (100, bytes(100)), (300, bytes(100)))
    assert client.window_left_bytes == left(100, 100, 100)
    ack = frames.Ack(50, (Span(310, 400),))
    assert feed(client, codec.encode(ack, 1)) == [Acknowledged(1, 50, (Span(310, 400),))]
    assert client.window_left_bytes == left(100, 100, 100), "none of them is durable as a whole"
    feed(client, codec.encode(frames.Ack(199, (Span(300, 400),)), 1))
    assert client.window_left_bytes == left(100)
    feed(client, codec.encode(frames.Ack(199, (Span(300, 400),)), 1))
    assert client.window_left_bytes == left(100), "a repeated acknowledgement frees nothing"
    feed(client, codec.encode_ack(1, 400))
    assert client.window_left_bytes == left()
    assert client.unanswered_bytes == 0


def test_an_ack_frees_both_copies_of_bytes_sent_twice() -> None:
    client = sending((0, bytes(100)), (50, bytes(100)))
    assert client.window_left_bytes == left(100, 100)
    client.receive(codec.encode_ack(1, 150))
    assert client.window_left_bytes == left()


@pytest.mark.parametrize("start", [50, 101])
def test_a_refusal_of_a_part_frees_nothing(start: int) -> None:
    client = sending((0, bytes(100)), (100, bytes(100)))
    client.receive(codec.encode(frames.Nack(ErrorCode.CHUNK_CORRUPT, start, 198, 0), 1))
    assert client.window_left_bytes == left(100, 100)


def test_a_chunk_that_was_lost_as_the_server_has_a_part_of_its_bytes_leaves_the_window() -> None:
    client = sending((0, bytes(100)), (100, bytes(100)))
    client.receive(codec.encode(frames.Nack(ErrorCode.INCOMPLETE, 150, 199, 150), 1))
    assert client.window_left_bytes == left(100)


def test_refused_bytes_leave_the_window_until_they_are_sent_again() -> None:
    client = sending((0, bytes(100)), (100, bytes(100)))
    client.receive(codec.encode(frames.Nack(ErrorCode.CHUNK_CORRUPT, 100, 199, 0), 1))
    assert client.window_left_bytes == left(100)
    client.chunk(1, 100, bytes(100))
    assert client.window_left_bytes == left(100, 100)


@pytest.mark.parametrize(
    "end", [ERROR, frames.Finished(42, 100, 0), frames.Aborted(42), opened_of(100, UploadState.COMPLETE)]
)
def test_the_bytes_of_a_stream_that_ends_leave_the_window(end: frames.Error) -> None:
    client = sending((0, bytes(100)))
    client.receive(codec.encode(end, 1))
    assert client.window_left_bytes == left()
    with pytest.raises(LocalProtocolError):
        client.chunk(1, 100, b"x")


def test_an_ack_for_an_ended_stream_is_ignored() -> None:
    client = sending((0, bytes(100)))
    client.receive(codec.encode(ERROR, 1))
    assert client.receive(codec.encode_ack(1, 100)) == [Acknowledged(1, 100, ())]
    assert client.window_left_bytes == left()


def test_no_window_is_left_before_welcome_or_once_it_is_full() -> None:
    client = ClientConnection(HELLO)
    client.open(OPEN)
    client.chunk(1, 0, bytes(2000))
    client.receive(codec.encode(replace(WELCOME, chunk_bytes_max=4000)))
    assert client.window_left_bytes == 0


def test_an_error_on_a_stream_keeps_the_connection(feed: FeedSizes) -> None:
    client = sending()
    assert feed(client, codec.encode(ERROR, 1)) == [Failed(1, ERROR)]
    assert client.state is ConnectionState.OPEN


def test_an_error_on_stream_0_ends_the_connection(feed: FeedSizes) -> None:
    client = sending()
    assert feed(client, codec.encode(ERROR, 0) + codec.encode_ack(1, 9)) == [Failed(0, ERROR)]
    assert client.state is ConnectionState.CLOSING


def test_input_after_the_last_words_is_ignored() -> None:
    assert sending().receive(codec.encode(ERROR, 0) + bytes(12_000)) == [Failed(0, ERROR)]


def test_an_unknown_error_code_is_reported_with_its_action() -> None:
    unknown = frames.Error(0x02EE, Action.WAIT, 100)
    assert sending().receive(codec.encode(unknown, 1)) == [Failed(1, unknown)]


def test_ping_gets_an_answer_and_pong_gets_none(feed: FeedSizes) -> None:
    client = sending()
    assert feed(client, codec.encode(frames.Ping(77)) + codec.encode(frames.Pong(1))) == []
    assert client.data_to_send() == [codec.encode(frames.Pong(77))]


# A server that misbehaves.


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frame(0x7F), ErrorCode.FRAME_UNKNOWN),
        (frame(FrameType.ACK, bytes(7), stream=1), ErrorCode.FRAME_MALFORMED),
        (frame(FrameType.ACK, bytes(8), stream=1, flags=1), ErrorCode.FRAME_MALFORMED),
        (frame(FrameType.STATUS, bytes(8185), stream=1)[:8], ErrorCode.FRAME_TOO_LARGE),
        (frame(FrameType.HELLO), ErrorCode.FRAME_UNEXPECTED),
        (codec.encode(WELCOME), ErrorCode.FRAME_UNEXPECTED),
    ],
)
def test_the_device_leaves_a_server_that_misbehaves(raw: bytes, code: ErrorCode, feed: FeedSizes) -> None:
    client = sending()
    (event,) = feed(client, raw + codec.encode_ack(1, 4))
    assert isinstance(event, ServerMisbehaved)
    assert event.code is code
    assert event.detail
    assert client.state is ConnectionState.CLOSING


@pytest.mark.parametrize("state", ["START", "DECIDING", "CHALLENGED", "OPEN"])
@pytest.mark.parametrize("kind", list(FrameType))
def test_a_frame_that_the_table_does_not_list_is_unexpected(state: str, kind: FrameType) -> None:
    client = ClientConnection(SECRET_HELLO)
    if state == "OPEN":
        client.receive(codec.encode(WELCOME))
    elif state != "START":
        client.receive(codec.encode(frames.Challenge(bytes(32))))
        if state == "CHALLENGED":
            client.prove(bytes(32))
    assert client.state is ConnectionState[state]
    events = client.receive(frame(kind, bytes(200), stream=1))
    misbehaved = [event.code for event in events if isinstance(event, ServerMisbehaved)]
    unexpected = kind not in CLIENT_ACCEPTS[ConnectionState[state]]
    assert (misbehaved == [ErrorCode.FRAME_UNEXPECTED]) is unexpected


def test_skippable_frames_are_skipped() -> None:
    client = sending()
    assert client.receive(frame(0xF0, b"private") + codec.encode_ack(1, 4)) == [Acknowledged(1, 4, ())]


def test_input_larger_than_the_receive_buffer_is_accepted() -> None:
    client = sending()
    assert len(client.receive(codec.encode_ack(1, 4) * 5000)) == 5000


def test_a_large_frame_needs_no_lease() -> None:
    client = sending()
    ranges = tuple(Span(at * 10, at * 10 + 1) for at in range(1, 256))
    assert len(byte_by_byte(client, codec.encode(frames.Ack(4, ranges), 1))) == 1


def test_a_frame_listed_without_a_handler_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIENT_ACCEPTS, ConnectionState.OPEN, frozenset({FrameType.ABORT}))
    with pytest.raises(LocalProtocolError):
        sending().receive(codec.encode(frames.Abort(), 1))
