"""The server's end: every frame of a device, every answer, and what bad input gets. PROTOCOL.md §3 to §15."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocol import codec, frames
from protocol.constants import (
    FRAME_BYTES_MIN,
    NACKS_PER_RANGE_MAX,
    OFFSET_MAX,
    SIZE_UNKNOWN,
    Action,
    ChecksumKind,
    Feature,
    FrameType,
    UploadState,
)
from protocol.errors import ErrorCode
from protocol.events import (
    AbortRequested,
    ChunkRefused,
    ChunksReceived,
    ConnectionFailed,
    FinishRequested,
    HelloReceived,
    OpenRequested,
    ProofReceived,
    QueryReceived,
    ServerEvent,
    StreamFailed,
    TokenOffered,
)
from protocol.exceptions import LocalProtocolError
from protocol.ranges import Span
from protocol.server import REQUESTS_MAX, WAIT_MS
from protocol.state import ConnectionState, StreamState
from tests.protocol.harness import (
    HELLO,
    LIMITS,
    SECRET_HELLO,
    Pool,
    Refusal,
    ServerRig,
    chunk,
    corrupt,
    frame,
    merged,
    open_frame,
    open_stream,
    opened_of,
    welcome_of,
    welcomed,
    with_stream,
)

WINDOW = LIMITS.window_bytes
LARGE = bytes(range(256)) * 256
SMALL_WINDOW = replace(LIMITS, window_bytes=100)


def received(
    stream: int, start: int, data: bytes, count: int = 1, kind: ChecksumKind = ChecksumKind.SUM8
) -> ServerEvent:
    return ChunksReceived(stream, start, start + len(data), (data,), count, kind, None)


def failure(events: list[ServerEvent]) -> ErrorCode:
    """The code with which the connection failed."""
    assert isinstance(events[-1], ConnectionFailed)
    assert events[-1].detail
    return events[-1].code


def stream_failure(rig: ServerRig, data: bytes, number: int = 1) -> tuple[ErrorCode, int]:
    """The code and resume point with which input ended the stream while the connection lived on."""
    (event,) = rig.feed(data)
    assert isinstance(event, StreamFailed)
    assert event.stream == number
    ((stream, error),) = rig.sent()
    assert isinstance(error, frames.Error)
    assert (stream, error.code, error.action) == (number, event.code, event.code.action)
    assert number not in rig.connection.streams
    assert rig.connection.state is ConnectionState.OPEN
    return event.code, error.next_expected_byte


# Handshake.


@pytest.mark.parametrize("sizes", [(), (1,) * 500])
def test_hello_is_handed_on_as_sent_and_input_waits_for_the_answer(sizes: tuple[int, ...]) -> None:
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


def test_with_a_secret_nothing_may_follow_hello_before_the_challenge() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(SECRET_HELLO) + open_frame(1))
    rig.connection.challenge(bytes(32))
    assert failure(rig.resume()) is ErrorCode.FRAME_UNEXPECTED


@pytest.mark.parametrize("sizes", [(), (1,) * 500])
def test_with_a_token_open_and_chunks_may_follow_hello_at_once(sizes: tuple[int, ...]) -> None:
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
def test_a_handshake_that_cannot_be_is_refused(raw: bytes, code: ErrorCode | None, sizes: tuple[int, ...]) -> None:
    rig = ServerRig()
    events = rig.feed(raw, sizes)
    if code is None:
        assert events == [], "a frame that is cut off is awaited"
        return
    assert failure(events) is code
    ((stream, refused),) = rig.sent()
    assert stream == 0
    assert isinstance(refused, frames.Refused)
    assert (refused.code, refused.action, refused.version_min, refused.version_max) == (code, code.action, 1, 1)
    assert rig.connection.state is ConnectionState.CLOSING


def test_in_the_handshake_no_more_is_received_than_its_largest_frame_and_nothing_borrowed() -> None:
    rig = ServerRig()
    assert len(rig.connection.get_buffer()) == 8192
    rig.feed(codec.PREFIX.pack(FrameType.HELLO, 0, 0, 8184) + bytes(5000))
    assert len(rig.connection.get_buffer()) <= 8192
    rig.feed(codec.PREFIX.pack(FrameType.CHUNK, 0, 1, 2**31))
    assert rig.pool.lent_max == 0


def test_after_a_refusal_no_memory_is_borrowed_for_what_was_announced() -> None:
    rig = ServerRig()
    rig.feed(codec.PREFIX.pack(FrameType.HELLO, 0, 0, 2**32 - 1))
    rig.feed(bytes(100_000))
    assert rig.pool.lent_max == 0


def test_a_caller_refuses_with_its_own_reason() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(HELLO))
    rig.connection.fail(ErrorCode.TOO_MANY_CONNECTIONS, "100 are open", wait_ms=700)
    refused = frames.Refused(ErrorCode.TOO_MANY_CONNECTIONS, Action.WAIT, 1, 1, 700, "100 are open")
    assert rig.sent() == [(0, refused)]
    assert rig.connection.take_events() == [ConnectionFailed(ErrorCode.TOO_MANY_CONNECTIONS, "100 are open")]
    assert rig.resume() == []


def test_a_device_that_takes_small_frames_only_gets_no_explanation() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(replace(HELLO, frame_bytes_max=FRAME_BYTES_MIN)))
    rig.connection.fail(ErrorCode.UNAUTHENTICATED, "x" * 100)
    ((_, refused),) = rig.sent()
    assert isinstance(refused, frames.Refused)
    assert refused.text is None


@pytest.mark.parametrize("answer", ["welcome", "challenge"])
def test_answering_a_hello_that_did_not_come_is_a_bug_of_the_caller(answer: str) -> None:
    connection = ServerRig().connection
    with pytest.raises(LocalProtocolError):
        connection.welcome(welcome_of()) if answer == "welcome" else connection.challenge(bytes(32))


def test_a_second_hello_is_unexpected() -> None:
    assert failure(welcomed().feed(codec.encode(HELLO))) is ErrorCode.FRAME_UNEXPECTED


# OPEN.


def test_open_is_handed_on_and_answered_where_it_goes_on() -> None:
    rig = welcomed()
    (event,) = rig.feed(open_frame(5, "a/b", 100))
    assert isinstance(event, OpenRequested)
    assert (event.stream, event.open.name, event.open.size) == (5, "a/b", 100)
    assert not rig.connection.is_held, "other frames go on"
    rig.connection.opened(5, opened_of(40), 100)
    assert rig.sent() == [(5, opened_of(40))]
    stream = rig.connection.streams.get(5)
    assert stream is not None
    assert (stream.state, stream.size, stream.next_expected_byte) == (StreamState.RECEIVING, 100, 40)


def test_a_complete_file_ends_its_stream_at_once_and_chunks_on_their_way_are_dropped() -> None:
    rig = welcomed()
    rig.feed(open_frame(1, size=4) + chunk(1, 0, b"data"))
    rig.connection.opened(1, opened_of(4, UploadState.COMPLETE), 4)
    assert rig.resume() == []
    assert rig.sent() == [(1, opened_of(4, UploadState.COMPLETE))]
    assert 1 not in rig.connection.streams


@pytest.mark.parametrize(
    "behind",
    [
        chunk(1, 0, b"data"),
        chunk(1, 0, b"data", FrameType.CHUNK_CRC32C),
        codec.encode(frames.Finish(4), 1),
        codec.encode(frames.Abort(), 1),
    ],
    ids=["chunk", "crc32c", "finish", "abort"],
)
@pytest.mark.parametrize("opens", [True, False], ids=["opened", "failed"])
def test_input_behind_an_open_waits_until_it_is_decided(behind: bytes, opens: bool) -> None:
    rig = welcomed()
    (event,) = rig.feed(open_frame(1, size=4) + behind + codec.encode(frames.Ping(1)))
    assert isinstance(event, OpenRequested)
    assert rig.connection.is_held
    assert rig.sent() == []
    if opens:
        rig.connection.opened(1, opened_of(), 4)
        assert len(rig.resume()) == 1
    else:
        rig.connection.fail_stream(1, ErrorCode.GONE, "deleted")
        assert rig.resume() == [], "what was for a stream that never opened is dropped"
    assert not rig.connection.is_held
    assert rig.sent()[-1] == (0, frames.Pong(1))


def test_other_streams_wait_behind_input_that_waits_and_lose_nothing() -> None:
    rig = with_stream()
    data = b"".join(chunk(1, at * 1000, bytes([at]) * 1000) for at in range(200))
    rig.feed(open_frame(2) + chunk(2, 0, b"first") + data)
    assert rig.connection.is_held
    rig.connection.opened(2, opened_of(), SIZE_UNKNOWN)
    first, *rest = merged(rig.resume())
    assert first == received(2, 0, b"first")
    assert rest == [received(1, 0, b"".join(bytes([at]) * 1000 for at in range(200)), 200)]
    assert rig.pool.lent == 0


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (open_frame(2, ""), ErrorCode.NAME_INVALID),
        (open_frame(2, "nul\0"), ErrorCode.NAME_INVALID),
        (open_frame(2, "x" * 256), ErrorCode.NAME_INVALID),
        (open_frame(2, "\udcff"), ErrorCode.NAME_INVALID),
        (open_frame(2, size=OFFSET_MAX + 1), ErrorCode.SIZE_INVALID),
    ],
)
def test_an_open_that_cannot_be_costs_its_stream_only(raw: bytes, code: ErrorCode) -> None:
    rig = with_stream()
    assert stream_failure(rig, raw, 2) == (code, SIZE_UNKNOWN)
    assert rig.feed(chunk(2, 0, b"late") + chunk(1, 0, b"data")) == [received(1, 0, b"data")]


def test_names_that_look_like_paths_are_only_names() -> None:
    (event,) = welcomed().feed(open_frame(1, "/etc/passwd"))
    assert isinstance(event, OpenRequested)


def test_too_many_streams_cost_the_last_one_until_another_ends() -> None:
    rig = welcomed()
    for number in range(1, LIMITS.streams_max + 1):
        open_stream(rig, number)
    assert stream_failure(rig, open_frame(9), 9) == (ErrorCode.TOO_MANY_STREAMS, SIZE_UNKNOWN)
    rig.connection.aborted(1, 42)
    rig.sent()
    open_stream(rig, 10)


@pytest.mark.parametrize("number", [1, 2])
def test_a_stream_number_is_used_once(number: int) -> None:
    rig = welcomed()
    open_stream(rig, 2)
    assert failure(rig.feed(open_frame(number))) is ErrorCode.STREAM_REUSED
    ((stream, error),) = rig.sent()
    assert stream == 0
    assert isinstance(error, frames.Error)
    assert error.action is Action.REOPEN


def test_an_open_refused_by_the_caller_says_why_and_how_long_to_wait() -> None:
    rig = welcomed()
    rig.feed(open_frame(1))
    rig.connection.fail_stream(1, ErrorCode.DISK_FULL, "full")
    rig.connection.fail_stream(2, ErrorCode.QUOTA_EXCEEDED, "used up", wait_ms=60_000)
    assert rig.sent() == [
        (1, frames.Error(ErrorCode.DISK_FULL, Action.WAIT, WAIT_MS, SIZE_UNKNOWN, "full")),
        (2, frames.Error(ErrorCode.QUOTA_EXCEEDED, Action.WAIT, 60_000, SIZE_UNKNOWN, "used up")),
    ]


def test_opened_twice_is_a_bug_of_the_caller() -> None:
    rig = with_stream()
    for number in (1, 2):
        with pytest.raises(LocalProtocolError):
            rig.connection.opened(number, opened_of(), SIZE_UNKNOWN)


# Chunks.


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
@pytest.mark.parametrize("data", [b"x", b"small data", LARGE])
@pytest.mark.parametrize("sizes", [(), (3, 8, 20, 5000, 9000)], ids=["whole", "split"])
def test_every_form_of_chunk_is_received(kind: FrameType, data: bytes, sizes: tuple[int, ...]) -> None:
    rig = with_stream()
    checksum = ChecksumKind.CRC32C if kind is FrameType.CHUNK_CRC32C else ChecksumKind.SUM8
    assert rig.feed(chunk(1, 7, data, kind), sizes) == [received(1, 7, data, 1, checksum)]
    assert rig.sent() == []
    assert rig.pool.lent == 0


def test_adjacent_chunks_are_one_event_and_a_gap_begins_another() -> None:
    rig = with_stream()
    raw = chunk(1, 0, b"ab") + chunk(1, 2, b"cde") + chunk(1, 10, b"f") + chunk(1, 11, b"g", FrameType.CHUNK_COMPACT)
    assert rig.feed(raw) == [received(1, 0, b"abcde", 2), received(1, 10, b"fg", 2)]


def test_runs_keep_streams_and_checksums_apart() -> None:
    rig = with_stream()
    open_stream(rig, 2)
    raw = chunk(1, 0, b"a") + chunk(2, 1, b"b") + chunk(2, 2, b"c", FrameType.CHUNK_CRC32C)
    assert rig.feed(raw) == [
        received(1, 0, b"a"),
        received(2, 1, b"b"),
        received(2, 2, b"c", 1, ChecksumKind.CRC32C),
    ]


def test_a_control_frame_keeps_its_place_between_chunks() -> None:
    rig = with_stream()
    raw = chunk(1, 0, b"a") + codec.encode(frames.Finish(2), 1) + chunk(1, 1, b"b")
    assert rig.feed(raw) == [received(1, 0, b"a"), FinishRequested(1, frames.Finish(2)), received(1, 1, b"b")]


def test_many_small_chunks_are_gathered() -> None:
    rig = with_stream()
    data = bytes(range(250)) * 4
    raw = b"".join(chunk(1, at, data[at : at + 10]) for at in range(0, 1000, 10))
    assert rig.feed(raw) == [received(1, 0, data, 100)]


def test_large_chunks_are_handed_on_without_a_copy_and_the_memory_goes_back() -> None:
    rig = with_stream(Pool(leases_max=1))
    raw = chunk(1, 0, LARGE) + chunk(1, len(LARGE), LARGE)
    rig.feed(raw[:100])
    rest = raw[100:]
    rig.connection.get_buffer()[: len(rest)] = rest
    (event,) = rig.connection.received(len(rest), rig.now)
    assert isinstance(event, ChunksReceived)
    assert event.data == (LARGE, LARGE)
    assert event.lease is not None
    rig.connection.close()
    assert rig.pool.lent == 1, "the event still holds it"
    assert event.data == (LARGE, LARGE)
    event.lease.release()
    assert rig.pool.lent == 0


@pytest.mark.parametrize(
    ("kind", "feature"),
    [(FrameType.CHUNK_COMPACT, Feature.CHUNK_CRC32C), (FrameType.CHUNK_CRC32C, Feature.CHUNK_COMPACT)],
)
def test_forms_that_were_not_negotiated_are_unexpected(kind: FrameType, feature: Feature) -> None:
    rig = welcomed(features=feature)
    open_stream(rig, 1)
    assert failure(rig.feed(chunk(1, 0, b"data", kind))) is ErrorCode.FRAME_UNEXPECTED


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
def test_without_features_the_plain_chunk_is_still_there(kind: FrameType) -> None:
    rig = welcomed(features=0)
    open_stream(rig, 1)
    events = rig.feed(chunk(1, 0, b"data", kind))
    assert (events == [received(1, 0, b"data")]) is (kind is FrameType.CHUNK)


@pytest.mark.parametrize("end_byte", [99, 0, 102, 104, 2**32 - 1])
def test_a_chunk_that_lies_costs_its_stream_and_nothing_of_it_is_kept(end_byte: int) -> None:
    rig = with_stream()
    open_stream(rig, 2)
    rig.connection.acknowledge(1, 50, [], 0)
    rig.sent()
    assert stream_failure(rig, chunk(1, 100, b"four", wrong=Refusal(end_byte=end_byte))) == (
        ErrorCode.CHUNK_INVALID,
        50,
    )
    assert rig.feed(chunk(1, 0, b"late") + chunk(2, 0, b"data")) == [received(2, 0, b"data")]


def test_a_chunk_without_data_costs_its_stream() -> None:
    raw = frame(FrameType.CHUNK, bytes(17), stream=1)
    assert stream_failure(with_stream(), raw)[0] is ErrorCode.CHUNK_INVALID


@pytest.mark.parametrize("last", [OFFSET_MAX, OFFSET_MAX + 1, 2**64 - 1])
def test_a_chunk_beyond_all_offsets_costs_its_stream(last: int) -> None:
    raw = codec.CHUNK_FRAMES[FrameType.CHUNK].pack(FrameType.CHUNK, 0, 1, 18, last, last, 1) + b"\x01"
    assert stream_failure(with_stream(), raw)[0] is ErrorCode.CHUNK_INVALID


def test_gathering_stops_at_the_largest_offset() -> None:
    rig = with_stream()
    layout = codec.CHUNK_FRAMES[FrameType.CHUNK]
    offsets = range(OFFSET_MAX - 6, OFFSET_MAX + 6)
    raw = b"".join(layout.pack(FrameType.CHUNK, 0, 1, 18, at, at, 1) + b"\x01" for at in offsets)
    events = merged(rig.feed(raw))
    assert events[0] == received(1, OFFSET_MAX - 6, b"\x01" * 6, 6)
    assert isinstance(events[1], StreamFailed)
    assert events[1].code is ErrorCode.CHUNK_INVALID


@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_chunk_beyond_the_declared_size_costs_its_stream(count: int) -> None:
    rig = with_stream(size=count * 4 + 3)
    raw = b"".join(chunk(1, at * 4, b"four") for at in range(count))
    *events, failed = merged(rig.feed(raw + chunk(1, count * 4, b"four")))
    assert events == [received(1, 0, b"four" * count, count)]
    assert isinstance(failed, StreamFailed)
    assert failed.code is ErrorCode.CHUNK_BEYOND_END


def test_equal_chunks_far_beyond_the_end_are_not_gathered() -> None:
    rig = with_stream(size=40)
    events = merged(rig.feed(b"".join(chunk(1, at * 4, b"four") for at in range(30))))
    assert events[0] == received(1, 0, b"four" * 10, 10)
    assert isinstance(events[1], StreamFailed)
    assert len(events) == 2, "what is behind it is for a stream that has ended"


def test_an_oversized_chunk_is_refused_by_its_prefix() -> None:
    rig = with_stream()
    largest = LIMITS.chunk_bytes_max + 20
    assert rig.feed(codec.PREFIX.pack(FrameType.CHUNK_CRC32C, 0, 1, largest)) == []
    rig = with_stream()
    assert failure(rig.feed(codec.PREFIX.pack(FrameType.CHUNK, 0, 1, largest + 1))) is ErrorCode.FRAME_TOO_LARGE


@pytest.mark.parametrize("number", [2, 500])
@pytest.mark.parametrize(
    "make",
    [
        lambda number: chunk(number, 0, b"data"),
        lambda number: codec.encode(frames.Finish(1), number),
        lambda number: codec.encode(frames.Abort(), number),
    ],
    ids=["chunk", "finish", "abort"],
)
def test_a_stream_that_was_never_opened_is_unknown_once_and_its_number_is_used(
    number: int, make: Callable[[int], bytes]
) -> None:
    rig = with_stream()
    assert stream_failure(rig, make(number), number) == (ErrorCode.STREAM_UNKNOWN, SIZE_UNKNOWN)
    assert rig.feed(make(number)) == []
    assert rig.sent() == []
    assert failure(rig.feed(open_frame(number))) is ErrorCode.STREAM_REUSED


@pytest.mark.parametrize(
    "end",
    [
        lambda rig: rig.connection.finished(1, frames.Finished(42, 4, 0)),
        lambda rig: rig.connection.aborted(1, 42),
        lambda rig: rig.connection.fail_stream(1, ErrorCode.FENCED, "taken over"),
    ],
    ids=["finished", "aborted", "failed"],
)
def test_late_frames_of_a_stream_that_ended_are_dropped(end: Callable[[ServerRig], None]) -> None:
    rig = with_stream()
    end(rig)
    rig.sent()
    late = chunk(1, 0, b"late") + corrupt(1, 4, b"late") + codec.encode(frames.Finish(1), 1)
    assert rig.feed(late + codec.encode(frames.Abort(), 1)) == []
    assert rig.sent() == []
    assert rig.connection.streams.unacknowledged_bytes == 0


# Corrupt chunks.


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
def test_a_corrupt_chunk_costs_that_chunk(kind: FrameType) -> None:
    rig = with_stream()
    events = rig.feed(chunk(1, 0, b"good", kind) + corrupt(1, 4, b"evil", kind) + chunk(1, 8, b"good", kind))
    assert [type(event) for event in events] == [ChunksReceived, ChunkRefused, ChunksReceived]
    ((stream, nack),) = rig.sent()
    assert stream == 1
    assert isinstance(nack, frames.Nack)
    assert (nack.code, nack.start_byte, nack.end_byte, nack.next_expected_byte) == (ErrorCode.CHUNK_CORRUPT, 4, 7, 0)


def test_the_eighth_refusal_of_a_range_ends_the_stream() -> None:
    rig = with_stream()
    for _ in range(NACKS_PER_RANGE_MAX - 1):
        assert rig.feed(corrupt(1, 4, b"evil")) == [ChunkRefused(1, ErrorCode.CHUNK_CORRUPT)]
    assert [type(sent) for _, sent in rig.sent()] == [frames.Nack] * 7
    refused, failed = rig.feed(corrupt(1, 4, b"evil"))
    assert refused == ChunkRefused(1, ErrorCode.CHUNK_CORRUPT)
    assert isinstance(failed, StreamFailed)
    assert failed.code is ErrorCode.NACKS_EXHAUSTED
    ((_, error),) = rig.sent()
    assert isinstance(error, frames.Error)
    assert error.action is Action.REOPEN


def test_a_good_copy_clears_the_count() -> None:
    rig = with_stream()
    for _ in range(3):
        for _ in range(NACKS_PER_RANGE_MAX - 1):
            rig.feed(corrupt(1, 4, b"evil"))
        assert rig.feed(chunk(1, 4, b"good")) == [received(1, 4, b"good")]


@pytest.mark.parametrize("size", [12, 4], ids=["one chunk", "gathered"])
def test_good_bytes_clear_the_count_of_all_ranges_among_them(size: int) -> None:
    rig = with_stream()
    for _ in range(NACKS_PER_RANGE_MAX - 1):
        rig.feed(corrupt(1, 4, b"evil") + corrupt(1, 44, b"evil"))
    rig.feed(b"".join(chunk(1, at, bytes(size)) for at in range(0, 48, size)))
    assert rig.feed(corrupt(1, 4, b"evil") + corrupt(1, 44, b"evil")) == [ChunkRefused(1, ErrorCode.CHUNK_CORRUPT)] * 2


# Acknowledgements and the window.


@pytest.mark.parametrize("size", [1, 10, 100])
def test_the_window_is_full_to_the_byte_and_not_beyond(size: int) -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    raw = b"".join(chunk(1, at, bytes(size)) for at in range(0, 100, size))
    assert merged(rig.feed(raw)) == [received(1, 0, bytes(100), 100 // size)]
    assert failure(rig.feed(chunk(1, 100, b"x"))) is ErrorCode.WINDOW_EXCEEDED


def test_many_small_chunks_beyond_the_window_are_no_way_around_it() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    assert failure(rig.feed(b"".join(chunk(1, at, b"x") for at in range(101)))) is ErrorCode.WINDOW_EXCEEDED


def test_acknowledged_bytes_free_the_window() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    for turn in range(5):
        assert rig.feed(chunk(1, turn * 100, bytes(100)))
        rig.connection.acknowledge(1, (turn + 1) * 100, [], 100)
        assert rig.sent() == [(1, frames.Ack((turn + 1) * 100))]
    assert rig.connection.streams.unacknowledged_bytes == 0


def test_bytes_of_a_stream_that_ended_free_the_window() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    open_stream(rig, 2)
    rig.feed(chunk(1, 0, bytes(100)))
    rig.connection.aborted(1, 42)
    assert rig.feed(chunk(2, 0, bytes(100)))


def test_a_resend_after_a_nack_is_allowed_into_a_full_window() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    rig.feed(corrupt(1, 0, bytes(40)) + chunk(1, 40, bytes(100)))
    assert rig.feed(chunk(1, 0, bytes(40))) == [received(1, 0, bytes(40))]
    assert failure(rig.feed(chunk(1, 140, b"x"))) is ErrorCode.WINDOW_EXCEEDED


def test_ack_ranges_are_cut_to_k_and_to_the_devices_largest_frame() -> None:
    beyond = [Span(at * 10, at * 10 + 5) for at in range(1, 20)]
    rig = with_stream()
    rig.connection.acknowledge(1, 5, beyond, 0)
    assert rig.sent() == [(1, frames.Ack(5, tuple(beyond[: HELLO.ack_ranges_max])))]
    rig = with_stream(hello=replace(HELLO, frame_bytes_max=FRAME_BYTES_MIN))
    rig.connection.acknowledge(1, 5, beyond, 0)
    assert rig.sent() == [(1, frames.Ack(5, tuple(beyond[:2])))]


def test_a_range_refused_by_the_caller_counts_no_more_and_the_stream_lives_on() -> None:
    rig = with_stream(limits=SMALL_WINDOW)
    rig.feed(chunk(1, 50, bytes(100)))
    rig.connection.refuse_range(1, Span(50, 150), ErrorCode.TOO_MANY_GAPS, 100)
    ((_, nack),) = rig.sent()
    assert isinstance(nack, frames.Nack)
    assert (nack.code, nack.start_byte, nack.end_byte) == (ErrorCode.TOO_MANY_GAPS, 50, 149)
    assert rig.connection.streams.unacknowledged_bytes == 0
    assert rig.feed(chunk(1, 0, bytes(100)))


def test_answers_to_a_stream_that_is_gone_are_dropped() -> None:
    rig = with_stream()
    rig.connection.acknowledge(9, 5, [], 5)
    rig.connection.refuse_range(9, Span(0, 5), ErrorCode.TOO_MANY_GAPS, 5)
    assert rig.sent() == []


# FINISH, ABORT, QUERY.


def test_finish_is_handed_on_as_often_as_it_comes_and_ends_with_finished() -> None:
    rig = with_stream()
    finish = frames.Finish(4, crc32c=7)
    for _ in range(2):
        assert rig.feed(codec.encode(finish, 1)) == [FinishRequested(1, finish)]
    rig.connection.send(1, frames.Verifying(50))
    rig.connection.finished(1, frames.Finished(42, 4, 7))
    assert rig.sent() == [(1, frames.Verifying(50)), (1, frames.Finished(42, 4, 7))]
    assert 1 not in rig.connection.streams


def test_a_zero_byte_file_is_open_and_finish() -> None:
    rig = with_stream(size=0)
    assert rig.feed(codec.encode(frames.Finish(0), 1)) == [FinishRequested(1, frames.Finish(0))]


@pytest.mark.parametrize(
    ("declared", "size"), [(4, 3), (4, 5), (0, 1), (SIZE_UNKNOWN, OFFSET_MAX + 1), (SIZE_UNKNOWN, SIZE_UNKNOWN)]
)
def test_finish_must_name_the_declared_size(declared: int, size: int) -> None:
    rig = with_stream(size=declared)
    assert stream_failure(rig, codec.encode(frames.Finish(size), 1))[0] is ErrorCode.SIZE_INVALID


def test_a_size_declared_by_finish_binds() -> None:
    rig = with_stream()
    rig.feed(codec.encode(frames.Finish(4), 1))
    assert stream_failure(rig, chunk(1, 4, b"x"))[0] is ErrorCode.CHUNK_BEYOND_END


def test_an_incomplete_upload_goes_on_after_finish() -> None:
    rig = with_stream()
    rig.feed(codec.encode(frames.Finish(4), 1))
    rig.connection.refuse_range(1, Span(0, 4), ErrorCode.INCOMPLETE, 0)
    ((_, nack),) = rig.sent()
    assert isinstance(nack, frames.Nack)
    assert (nack.code, nack.start_byte, nack.end_byte) == (ErrorCode.INCOMPLETE, 0, 3)
    stream = rig.connection.streams.get(1)
    assert stream is not None
    assert stream.state is StreamState.RECEIVING
    assert len(rig.feed(chunk(1, 0, b"data") + codec.encode(frames.Finish(4), 1))) == 2


def test_abort_is_handed_on_and_answered() -> None:
    rig = with_stream()
    assert rig.feed(codec.encode(frames.Abort(), 1)) == [AbortRequested(1)]
    rig.connection.aborted(1, 42)
    assert rig.sent() == [(1, frames.Aborted(42))]


@pytest.mark.parametrize("number", [0, 1, 65535])
def test_a_query_opens_nothing_whatever_number_it_carries(number: int) -> None:
    rig = with_stream()
    assert rig.feed(codec.encode(frames.Query("log.bin"), number)) == [QueryReceived(number, "log.bin")]
    open_stream(rig, 2)


@pytest.mark.parametrize(
    "raw",
    [
        codec.encode(frames.Ping(1), 1),
        codec.encode(frames.Pong(1), 1),
        codec.encode(frames.Refresh("t"), 1),
        open_frame(0),
        codec.encode(frames.Finish(1), 0),
        codec.encode(frames.Abort(), 0),
        chunk(0, 0, b"data"),
    ],
    ids=["ping", "pong", "refresh", "open", "finish", "abort", "chunk"],
)
def test_a_frame_on_the_wrong_kind_of_stream_is_malformed(raw: bytes) -> None:
    assert failure(with_stream().feed(raw)) is ErrorCode.FRAME_MALFORMED


def test_ping_is_answered_and_pong_is_silent() -> None:
    rig = welcomed()
    assert rig.feed(codec.encode(frames.Ping(9)) + codec.encode(frames.Pong(8))) == []
    assert rig.sent() == [(0, frames.Pong(9))]


# Frames that do not belong.


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frame(0x7E, b"?"), ErrorCode.FRAME_UNKNOWN),
        (frame(FrameType.PING, bytes(3)), ErrorCode.FRAME_MALFORMED),
        (frame(FrameType.PING, bytes(4), flags=4), ErrorCode.FRAME_MALFORMED),
        (frame(FrameType.OPEN, bytes(9), stream=2), ErrorCode.FRAME_MALFORMED),
        (codec.PREFIX.pack(FrameType.OPEN, 0, 2, 8185), ErrorCode.FRAME_TOO_LARGE),
        (codec.PREFIX.pack(0xFE, 0, 2, 2**32 - 1), ErrorCode.FRAME_TOO_LARGE),
        (codec.encode(frames.Ack(0), 1), ErrorCode.FRAME_UNEXPECTED),
    ],
)
def test_what_cannot_be_understood_ends_the_connection_after_what_came_before(raw: bytes, code: ErrorCode) -> None:
    rig = with_stream()
    first, *rest = rig.feed(chunk(1, 0, b"data") + raw + chunk(1, 4, b"late"))
    assert first == received(1, 0, b"data")
    assert failure(rest) is code
    assert len(rest) == 1
    ((stream, error),) = rig.sent()
    assert stream == 0
    assert isinstance(error, frames.Error)
    assert (error.code, error.action) == (code, code.action)


def test_unknown_frames_that_may_be_skipped_are() -> None:
    rig = with_stream()
    assert rig.feed(frame(0xF7, b"private", stream=3) + chunk(1, 0, b"data")) == [received(1, 0, b"data")]


# Authority.


def expired() -> ServerRig:
    rig = with_stream()
    open_stream(rig, 2)
    rig.connection.expire()
    assert rig.connection.state is ConnectionState.EXPIRED
    return rig


def test_after_expiry_chunks_are_received_and_not_acknowledged_until_refreshed() -> None:
    rig = expired()
    assert rig.feed(chunk(1, 0, b"data") + chunk(2, 0, b"more")) == [received(1, 0, b"data"), received(2, 0, b"more")]
    rig.connection.acknowledge(1, 4, [], 4)
    rig.connection.acknowledge(2, 4, [], 4)
    rig.connection.fail_stream(2, ErrorCode.FENCED, "taken over")
    assert [type(sent) for _, sent in rig.sent()] == [frames.Error]
    assert rig.feed(codec.encode(frames.Refresh("new"))) == [TokenOffered("new")]
    rig.connection.refreshed(600)
    assert rig.sent() == [(0, frames.Refreshed(600)), (1, frames.Ack(4))]
    assert rig.connection.state is ConnectionState.OPEN


@pytest.mark.parametrize("end", ["finished", "aborted"])
def test_withheld_acks_of_a_stream_that_ended_are_never_sent(end: str) -> None:
    rig = expired()
    rig.connection.acknowledge(1, 4, [], 0)
    if end == "finished":
        rig.connection.finished(1, frames.Finished(42, 4, 0))
    else:
        rig.connection.aborted(1, 42)
    assert rig.sent() == []
    rig.connection.refreshed(600)
    refreshed, (number, answer) = rig.sent()
    assert refreshed == (0, frames.Refreshed(600))
    assert number == 1
    assert isinstance(answer, frames.Finished | frames.Aborted)


def test_answers_to_what_was_asked_before_expiry_wait_for_refresh() -> None:
    rig = welcomed()
    rig.feed(open_frame(1) + chunk(1, 0, b"data"))
    rig.connection.expire()
    rig.connection.opened(1, opened_of(), SIZE_UNKNOWN)
    assert rig.resume() == [received(1, 0, b"data")]
    rig.connection.acknowledge(1, 4, [], 4)
    assert rig.sent() == []
    rig.connection.refreshed(600)
    assert rig.sent() == [(0, frames.Refreshed(600)), (1, opened_of()), (1, frames.Ack(4))]


@pytest.mark.parametrize(
    "request_",
    [
        open_frame(3),
        codec.encode(frames.Finish(4), 1),
        codec.encode(frames.Abort(), 1),
        codec.encode(frames.Query("log.bin"), 0),
    ],
    ids=["open", "finish", "abort", "query"],
)
def test_after_expiry_requests_wait(request_: bytes) -> None:
    rig = expired()
    assert rig.feed(chunk(1, 0, b"data") + request_) == [received(1, 0, b"data")]
    assert rig.connection.is_held
    rig.connection.refreshed(600)
    assert len(rig.resume()) == 1


def test_a_refresh_in_time_is_answered_and_changes_nothing_else() -> None:
    rig = with_stream()
    assert rig.feed(codec.encode(frames.Refresh("new"))) == [TokenOffered("new")]
    rig.connection.refreshed(600)
    assert rig.sent() == [(0, frames.Refreshed(600))]


def test_authority_that_never_came_back_ends_the_connection_with_its_reason() -> None:
    rig = expired()
    rig.connection.acknowledge(1, 4, [], 0)
    rig.connection.fail(ErrorCode.TOKEN_EXPIRED, "no refresh within 30 s")
    ((stream, error),) = rig.sent()
    assert stream == 0
    assert isinstance(error, frames.Error)
    assert error.action is Action.REAUTHENTICATE


def test_before_the_handshake_is_done_nothing_expires() -> None:
    connection = ServerRig().connection
    connection.expire()
    assert connection.state is ConnectionState.START


# The end.


def test_after_goaway_no_open_is_answered_and_the_rest_goes_on() -> None:
    rig = with_stream()
    rig.connection.go_away(1500, "restart")
    assert rig.sent() == [(0, frames.Goaway(ErrorCode.SHUTTING_DOWN, 1500, "restart"))]
    assert rig.feed(open_frame(2) + chunk(2, 0, b"void") + chunk(1, 0, b"data")) == [received(1, 0, b"data")]
    rig.connection.acknowledge(1, 4, [], 4)
    assert rig.sent() == [(1, frames.Ack(4))]


def test_before_the_handshake_is_done_nobody_is_told_to_go_away() -> None:
    rig = ServerRig()
    rig.connection.go_away(1500, "restart")
    assert rig.connection.going_away
    assert rig.sent() == []


def test_the_last_words_are_the_last_and_are_said_once() -> None:
    rig = with_stream()
    rig.connection.fail(ErrorCode.INTERNAL, "broken")
    rig.connection.fail(ErrorCode.IDLE_TIMEOUT, "silent")
    rig.connection.acknowledge(1, 4, [], 0)
    rig.connection.send(1, frames.Verifying(5))
    assert rig.sent() == [(0, frames.Error(ErrorCode.INTERNAL, Action.WAIT, WAIT_MS, SIZE_UNKNOWN, "broken"))]
    assert rig.feed(chunk(1, 0, b"data") + b"anything") == [ConnectionFailed(ErrorCode.INTERNAL, "broken")]
    assert rig.feed(LARGE * 10) == []
    assert rig.pool.lent == 0


def test_closing_gives_the_memory_back_and_takes_nothing_more() -> None:
    rig = with_stream()
    rig.feed(chunk(1, 0, LARGE)[:20_000])
    assert rig.pool.lent == 1
    rig.connection.close()
    assert rig.pool.lent == 0
    assert rig.connection.state is ConnectionState.CLOSING
    assert rig.resume() == []


# Memory.


def test_without_memory_to_borrow_input_waits_and_then_goes_on() -> None:
    rig = with_stream(Pool(leases_max=0))
    assert rig.feed(chunk(1, 0, LARGE), (8000, 8000)) == []
    assert rig.connection.is_starved
    assert rig.resume() == []
    assert rig.connection.is_starved
    assert rig.connection.check_time(rig.now + 500) == [], "the silence is not the device's"
    rig.pool.leases_max = 1
    assert rig.resume() == [received(1, 0, LARGE)]
    assert rig.pool.lent == 0


# Time.


def test_silence_is_asked_about_and_then_ends_the_connection() -> None:
    rig = welcomed()
    assert rig.connection.check_time(rig.now + 30) == []
    assert rig.sent() == []
    assert rig.connection.check_time(rig.now + 31) == []
    assert rig.sent() == [(0, frames.Ping(1031))]
    assert failure(rig.connection.check_time(rig.now + 91)) is ErrorCode.IDLE_TIMEOUT
    assert rig.connection.check_time(rig.now + 200) == []


def test_a_handshake_that_takes_too_long_is_refused() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(HELLO)[:-1])
    assert failure(rig.connection.check_time(rig.now + 11)) is ErrorCode.HANDSHAKE_TIMEOUT
    assert isinstance(rig.sent()[0][1], frames.Refused)


@pytest.mark.parametrize("raw", [chunk(1, 0, LARGE), open_frame(2, "x" * 200)], ids=["chunk", "control"])
def test_a_frame_of_a_byte_a_second_is_too_slow(raw: bytes) -> None:
    rig = with_stream()
    for at in range(10):
        assert rig.connection.check_time(rig.now) == []
        rig.feed(raw[at : at + 1])
        rig.now += 1
    assert failure(rig.connection.check_time(rig.now)) is ErrorCode.TOO_SLOW


def test_a_slow_device_that_sends_whole_frames_is_not_too_slow() -> None:
    rig = with_stream()
    for at in range(60):
        assert rig.feed(chunk(1, at, b"x")) == [received(1, at, b"x")]
        rig.now += 1
        assert rig.connection.check_time(rig.now) == []


def test_while_the_server_does_not_read_no_silence_is_held_against_the_device() -> None:
    rig = welcomed()
    rig.feed(open_frame(1) + chunk(1, 0, LARGE)[:50])
    rig.feed(chunk(1, 0, LARGE)[50:])
    assert rig.connection.is_held
    assert rig.connection.check_time(rig.now + 500) == []
    rig.now += 500
    rig.connection.opened(1, opened_of(), SIZE_UNKNOWN)
    assert rig.resume() == [received(1, 0, LARGE)]
    assert rig.connection.check_time(rig.now + 29) == []
    assert rig.connection.state is ConnectionState.OPEN


def test_a_flood_of_requests_waits_until_some_are_answered() -> None:
    rig = welcomed()
    query = codec.encode(frames.Query("name"), 1)
    events = rig.feed(query * (REQUESTS_MAX + 2))
    assert len(events) == REQUESTS_MAX
    assert rig.connection.is_held
    rig.connection.answered()
    assert len(rig.resume()) == 1
    assert rig.connection.is_held
    rig.connection.answered()
    assert len(rig.resume()) == 1
    assert not rig.connection.is_held


def test_an_answer_to_a_request_does_not_let_input_pass_that_waits_for_the_handshake() -> None:
    rig = ServerRig()
    rig.feed(codec.encode(HELLO))
    rig.connection.answered()
    assert rig.connection.is_held
