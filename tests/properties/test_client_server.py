"""Client and server against each other, through bytes alone: requests and answers arrive as they were sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import codec, frames
from protocol.checksum import crc32c
from protocol.client import ClientConnection
from protocol.constants import OFFSET_MAX, SIZE_UNKNOWN, Action, Disposition, Feature, FrameType, UploadState
from protocol.errors import ErrorCode
from protocol.events import (
    AbortRequested,
    Acknowledged,
    Answered,
    Challenged,
    ChunksReceived,
    ClientEvent,
    Failed,
    FinishRequested,
    HelloReceived,
    OpenRequested,
    ProofReceived,
    QueryReceived,
    ServerEvent,
    TokenOffered,
    Welcomed,
)
from protocol.handshake import device_key, prove
from protocol.ranges import RangeSet, Span
from tests.support.server_rig import HELLO, SECRET_HELLO, Pool, ServerRig, merged, opened_of, welcome_of

OPEN = frames.Open(
    Disposition.REPLACE,
    100,
    "log.bin",
    tag=b"\x01" * 32,
    sha256=b"\x02" * 32,
    crc32c=3,
    content_type="text/plain",
    external_id="7",
    original_name="Log (1).bin",
)
DIGEST = b"\x05" * 32


class Link:
    """A client and a server. `up` and `down` carry pending output across, in pieces of the given sizes."""

    def __init__(self, hello: frames.Hello = HELLO, sizes: Sequence[int] = (), pool: Pool | None = None) -> None:
        self.client = ClientConnection(hello)
        self.rig = ServerRig(pool)
        self.sizes = list(sizes)

    def up(self) -> list[ServerEvent]:
        return self.rig.feed(b"".join(self.client.data_to_send()), self.sizes)

    def down(self) -> list[ClientEvent]:
        data = self.rig.connection.data_to_send(self.rig.now)
        events: list[ClientEvent] = []
        for size in [*self.sizes, len(data)]:
            events += self.client.receive(data[:size])
            data = data[size:]
        return events

    def shake(self) -> None:
        """Do a handshake with a token."""
        (event,) = self.up()
        assert event == HelloReceived(HELLO, self.client.hello_raw)
        self.rig.connection.welcome(welcome_of())
        assert self.rig.resume() == []
        assert self.down() == [Welcomed(welcome_of())]

    def open(self, size: int = SIZE_UNKNOWN) -> int:
        """Open an upload and return its stream."""
        stream = self.client.open(replace(OPEN, size=size))
        assert self.up() == [OpenRequested(stream, replace(OPEN, size=size))]
        self.rig.connection.opened(stream, opened_of(), size)
        assert self.rig.resume() == []
        assert self.down() == [Answered(stream, opened_of())]
        return stream


@pytest.fixture(params=[(), (1,) * 600, (7,) * 100], ids=["whole", "byte by byte", "by sevens"])
def link(request: pytest.FixtureRequest) -> Link:
    made = Link(sizes=request.param)
    made.shake()
    return made


@pytest.mark.parametrize("sizes", [(), (1,) * 600])
def test_a_proof_covers_the_frames_as_sent(sizes: tuple[int, ...]) -> None:
    key = device_key(bytes(range(32)))
    link = Link(SECRET_HELLO, sizes)
    (hello,) = link.up()
    assert isinstance(hello, HelloReceived)
    sent = link.rig.connection.challenge(b"\x09" * 32)
    assert link.rig.resume() == []
    (challenge,) = link.down()
    assert isinstance(challenge, Challenged)
    link.client.prove(prove(key, link.client.hello_raw, challenge.raw))
    assert link.up() == [ProofReceived(prove(key, hello.raw, sent))]
    link.rig.connection.welcome(welcome_of())
    assert link.down() == [Welcomed(welcome_of())]


def test_a_refusal_reaches_the_device_with_its_action() -> None:
    link = Link()
    link.up()
    link.rig.connection.fail(ErrorCode.UNAUTHENTICATED, "the token is not for this server")
    (event,) = link.down()
    assert isinstance(event, Failed)
    assert (event.error.code, event.error.action) == (ErrorCode.UNAUTHENTICATED, Action.REAUTHENTICATE)
    assert event.error.text == "the token is not for this server"


def test_open_and_opened(link: Link) -> None:
    assert link.open() == 1
    assert link.open() == 2


def test_opened_with_all_its_fields(link: Link) -> None:
    stream = link.client.open(OPEN)
    link.up()
    answer = frames.Opened(
        2**64 - 1, UploadState.RECEIVING, UploadState.EXPIRED, 40, 60, 7, (Span(50, 60), Span(70, 80)), DIGEST
    )
    link.rig.connection.opened(stream, answer, 100)
    assert link.down() == [Answered(stream, answer)]


@pytest.mark.parametrize("kind", list(codec.CHUNK_HEADERS))
def test_chunk_and_ack(link: Link, kind: FrameType) -> None:
    stream = link.open()
    link.client.chunk(stream, 0, b"data", kind)
    link.client.chunk(stream, 10, b"more", kind)
    first, second = link.up()
    assert isinstance(first, ChunksReceived)
    assert isinstance(second, ChunksReceived)
    assert (first.start, first.data, second.start, second.data) == (0, (b"data",), 10, (b"more",))
    link.rig.connection.acknowledge(stream, 4, [Span(10, 14)], first.charged_bytes + second.charged_bytes)
    assert link.down() == [Acknowledged(stream, 4, (Span(10, 14),))]
    assert link.client.unanswered_bytes == link.rig.connection.streams.unacknowledged_bytes == 0


def test_nack(link: Link) -> None:
    stream = link.open()
    link.client.chunk(stream, 0, b"data")
    (chunks,) = link.up()
    assert isinstance(chunks, ChunksReceived)
    link.rig.connection.refuse_range(stream, Span(0, 4), ErrorCode.TOO_MANY_GAPS, chunks.charged_bytes)
    (event,) = link.down()
    assert isinstance(event, Answered)
    assert isinstance(event.frame, frames.Nack)
    assert (event.frame.code, event.frame.start_byte, event.frame.end_byte) == (ErrorCode.TOO_MANY_GAPS, 0, 3)
    assert link.client.unanswered_bytes == link.rig.connection.streams.unacknowledged_bytes == 0


def test_finish_verifying_and_finished(link: Link) -> None:
    stream = link.open()
    finish = frames.Finish(0, crc32c=0, sha256=DIGEST)
    link.client.finish(stream, finish)
    assert link.up() == [FinishRequested(stream, finish)]
    link.rig.connection.send(stream, frames.Verifying(20))
    link.rig.connection.finished(stream, frames.Finished(42, 0, 0, DIGEST))
    assert link.down() == [
        Answered(stream, frames.Verifying(20)),
        Answered(stream, frames.Finished(42, 0, 0, DIGEST)),
    ]


def test_query_and_status(link: Link) -> None:
    link.client.query("log.bin", 9)
    assert link.up() == [QueryReceived(9, "log.bin")]
    status = frames.Status(42, UploadState.COMPLETE, 100, 100, 60, 7, (), DIGEST)
    link.rig.connection.send(9, status)
    assert link.down() == [Answered(9, status)]


def test_abort_and_aborted(link: Link) -> None:
    stream = link.open()
    link.client.abort(stream)
    assert link.up() == [AbortRequested(stream)]
    link.rig.connection.aborted(stream, 42)
    assert link.down() == [Answered(stream, frames.Aborted(42))]


def test_refresh_and_refreshed(link: Link) -> None:
    link.client.refresh("a.b.c")
    assert link.up() == [TokenOffered("a.b.c")]
    link.rig.connection.refreshed(600)
    assert link.down() == [Answered(0, frames.Refreshed(600))]


def test_ping_and_pong_both_ways(link: Link) -> None:
    link.client.ping(1)
    assert link.up() == []
    link.rig.connection.send(0, frames.Ping(2))
    assert link.down() == []
    assert link.up() == []
    assert link.rig.sent() == []


def test_goaway(link: Link) -> None:
    link.rig.connection.go_away(1500, "restart")
    assert link.down() == [Answered(0, frames.Goaway(ErrorCode.SHUTTING_DOWN, 1500, "restart"))]


@pytest.mark.parametrize("code", list(ErrorCode), ids=lambda code: code.name)
def test_every_error_reaches_the_device_with_its_action(code: ErrorCode) -> None:
    link = Link()
    link.shake()
    stream = link.open()
    link.rig.connection.fail_stream(stream, code, "why", wait_ms=5)
    assert link.down() == [Failed(stream, frames.Error(code, code.action, 5, 0, "why"))]
    link.rig.connection.fail(code, "why", wait_ms=5)
    assert link.down() == [Failed(0, frames.Error(code, code.action, 5, SIZE_UNKNOWN, "why"))]


# Whole uploads.


@dataclass(slots=True)
class Store:
    """What a server stores of one upload: the first copy of each byte."""

    content: bytearray
    have: RangeSet = field(default_factory=RangeSet)

    def put(self, event: ChunksReceived) -> None:
        data = b"".join(event.data)
        for gap in self.have.missing(event.start, event.end):
            part = data[gap.start - event.start : gap.end - event.start]
            self.content[gap.start : gap.end] = part
            self.have.add(gap.start, gap.end, crc32c(part))


PLANS = st.lists(st.tuples(st.integers(0, 20_000), st.sampled_from([1, 10, 500, 20_000])), min_size=1, max_size=40)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    PLANS,
    st.sampled_from(list(codec.CHUNK_HEADERS)),
    st.lists(st.integers(0, 10**6), max_size=20),
    st.lists(st.integers(1, 5000), max_size=50),
)
def test_a_file_survives_reordering_and_flipped_bits(
    plan: list[tuple[int, int]], kind: FrameType, flips: list[int], sizes: list[int]
) -> None:
    content = bytes(at * 31 % 251 for at in range(40_000))
    link = Link(pool=Pool(leases_max=1, lease_bytes=70_000), sizes=sizes)
    link.shake()
    stream = link.open(len(content))
    store = Store(bytearray(len(content)))
    to_send = [Span(start, min(start + size, len(content))) for start, size in plan]
    to_send.append(Span(0, len(content)))
    while to_send:
        span = to_send.pop(0)
        if span.end - span.start > link.client.window_left_bytes:
            continue
        link.client.chunk(stream, span.start, content[span.start : span.end], kind)
        header, data = link.client.data_to_send()
        if flips:
            at = flips.pop() % len(data)
            data = bytes(data[:at]) + bytes([data[at] ^ 0x10]) + bytes(data[at + 1 :])
        for event in merged(link.rig.feed(bytes(header) + bytes(data), link.sizes)):
            if isinstance(event, ChunksReceived):
                store.put(event)
                beyond = [Span(each.start, each.end) for each in store.have.beyond_next()]
                link.rig.connection.acknowledge(stream, store.have.next_expected_byte, beyond, event.charged_bytes)
        for answer in link.down():
            if isinstance(answer, Answered) and isinstance(answer.frame, frames.Nack):
                to_send.insert(0, Span(answer.frame.start_byte, answer.frame.end_byte + 1))
            elif isinstance(answer, Failed):
                assert answer.error.code == ErrorCode.NACKS_EXHAUSTED
                return
    assert bytes(store.content) == content
    assert store.have.prefix_crc32c() == crc32c(content)
    assert link.client.unanswered_bytes == link.rig.connection.streams.unacknowledged_bytes == 0
    assert link.rig.connection.streams.unacknowledged_bytes == 0


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
OPENS = st.builds(
    frames.Open,
    st.sampled_from(Disposition),
    st.one_of(st.integers(0, OFFSET_MAX), st.just(SIZE_UNKNOWN)),
    TEXT,
    tag=st.none() | st.binary(max_size=32),
    sha256=st.none() | st.binary(min_size=32, max_size=32),
    crc32c=st.none() | st.integers(0, 2**32 - 1),
    content_type=st.none() | TEXT,
    external_id=st.none() | TEXT,
    original_name=st.none() | TEXT,
)


@settings(deadline=None)
@given(OPENS)
def test_any_valid_request_arrives_as_it_was_sent(request: frames.Open) -> None:
    link = Link()
    link.shake()
    stream = link.client.open(request)
    assert link.up() == [OpenRequested(stream, request)]


@settings(deadline=None)
@given(st.integers(64, 400), st.integers(0, 255), st.lists(st.integers(1, 50), max_size=40))
def test_no_frame_is_larger_than_the_device_accepts(frame_bytes_max: int, k: int, gaps: list[int]) -> None:
    link = Link(replace(HELLO, frame_bytes_max=frame_bytes_max, ack_ranges_max=k, features=Feature.SHA256))
    link.up()
    connection = link.rig.connection
    connection.welcome(welcome_of())
    link.rig.resume()
    stream = link.client.open(OPEN)
    link.up()
    spans, position = [], 10
    for gap in gaps:
        spans.append(Span(position + gap, position + gap + 1))
        position += gap + 1
    answers: list[Callable[[], None]] = [
        lambda: connection.opened(stream, replace(opened_of(), ranges=tuple(spans), sha256=DIGEST, crc32c=1), 100),
        lambda: connection.acknowledge(stream, 10, spans, 0),
        lambda: connection.refuse_range(stream, Span(0, 5), ErrorCode.TOO_MANY_GAPS, 0),
        lambda: connection.fail_stream(stream, ErrorCode.DISK_FULL, "x" * 300),
        lambda: connection.go_away(5, "x" * 300),
        lambda: connection.fail(ErrorCode.INTERNAL, "x" * 300),
    ]
    for answer in answers:
        connection.data_to_send(link.rig.now)
        answer()
        raw = connection.data_to_send(link.rig.now)
        assert codec.PREFIX_BYTES < len(raw) <= frame_bytes_max
        if raw[0] == FrameType.ACK:
            ack = codec.decode(FrameType.ACK, raw[8:])
            assert isinstance(ack, frames.Ack)
            assert len(ack.ranges or ()) <= k
