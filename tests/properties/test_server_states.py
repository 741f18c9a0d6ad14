"""Every frame in every state, and arbitrary bytes: invalid input gets an error code, never an exception."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import codec, frames
from protocol.client import ClientConnection
from protocol.constants import SIZE_UNKNOWN, Disposition, FrameType
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, ConnectionFailed, ServerEvent
from protocol.ranges import Span
from protocol.state import SERVER_ACCEPTS, SERVER_HOLDS, STREAM_ACCEPTS, ConnectionState, StreamState
from tests.support.server_rig import (
    HELLO,
    LIMITS,
    SECRET_HELLO,
    Pool,
    ServerRig,
    chunk,
    corrupt,
    open_frame,
    open_stream,
    welcome_of,
    welcomed,
    with_stream,
)

Make: TypeAlias = Callable[[], ServerRig]


def start() -> ServerRig:
    return ServerRig()


def deciding() -> ServerRig:
    rig = ServerRig()
    rig.feed(codec.encode(SECRET_HELLO))
    return rig


def challenged() -> ServerRig:
    rig = deciding()
    rig.connection.challenge(bytes(32))
    rig.resume()
    return rig


def expired() -> ServerRig:
    rig = with_stream()
    rig.connection.expire()
    return rig


def closing() -> ServerRig:
    rig = with_stream()
    rig.connection.fail(ErrorCode.INTERNAL, "broken")
    rig.connection.take_events()
    return rig


STATES: dict[ConnectionState, Make] = {
    ConnectionState.START: start,
    ConnectionState.DECIDING: deciding,
    ConnectionState.CHALLENGED: challenged,
    ConnectionState.OPEN: with_stream,
    ConnectionState.EXPIRED: expired,
    ConnectionState.CLOSING: closing,
}

EXAMPLES: dict[FrameType, bytes] = {
    FrameType.HELLO: codec.encode(HELLO),
    FrameType.WELCOME: codec.encode(welcome_of()),
    FrameType.CHALLENGE: codec.encode(frames.Challenge(bytes(32))),
    FrameType.PROOF: codec.encode(frames.Proof(bytes(32))),
    FrameType.REFUSED: codec.encode(frames.Refused(0x0101, ErrorCode.MAGIC_WRONG.action, 1, 1, 0)),
    FrameType.REFRESH: codec.encode(frames.Refresh("token")),
    FrameType.REFRESHED: codec.encode(frames.Refreshed(60)),
    FrameType.OPEN: open_frame(2),
    FrameType.FINISH: codec.encode(frames.Finish(100), 1),
    FrameType.VERIFYING: codec.encode(frames.Verifying(5), 1),
    FrameType.FINISHED: codec.encode(frames.Finished(1, 100, 0), 1),
    FrameType.QUERY: codec.encode(frames.Query("log"), 1),
    FrameType.ABORT: codec.encode(frames.Abort(), 1),
    FrameType.ABORTED: codec.encode(frames.Aborted(1), 1),
    FrameType.CHUNK: chunk(1, 0, b"data"),
    FrameType.CHUNK_COMPACT: chunk(1, 0, b"data", FrameType.CHUNK_COMPACT),
    FrameType.CHUNK_CRC32C: chunk(1, 0, b"data", FrameType.CHUNK_CRC32C),
    FrameType.ACK: codec.encode(frames.Ack(0), 1),
    FrameType.NACK: codec.encode(frames.Nack(0x0301, 0, 1, 0), 1),
    FrameType.PING: codec.encode(frames.Ping(1)),
    FrameType.PONG: codec.encode(frames.Pong(1)),
    FrameType.GOAWAY: codec.encode(frames.Goaway(0x0130, 5)),
    FrameType.ERROR: codec.encode(frames.Error(0x01FF, ErrorCode.INTERNAL.action, 5)),
}
_OTHERS = {FrameType.OPENED: bytes(22), FrameType.STATUS: bytes(29)}  # their fields do not matter here
for _kind, _body in _OTHERS.items():
    EXAMPLES[_kind] = codec.PREFIX.pack(_kind, 0, 1, len(_body)) + _body


def test_every_state_and_every_frame_is_covered() -> None:
    assert set(STATES) == set(ConnectionState)
    assert set(EXAMPLES) == set(FrameType)


@pytest.mark.parametrize("kind", list(FrameType), ids=lambda kind: kind.name)
@pytest.mark.parametrize("state", list(ConnectionState), ids=lambda state: state.name)
def test_a_connection_accepts_exactly_the_frames_in_its_table(state: ConnectionState, kind: FrameType) -> None:
    rig = STATES[state]()
    assert rig.connection.state is state
    rig.sent()
    held_before = rig.connection.is_held
    events = rig.feed(EXAMPLES[kind])
    failed = [event.code for event in events if isinstance(event, ConnectionFailed)]
    if state is ConnectionState.CLOSING:
        assert (events, rig.unfed) == ([], b"")
    elif state is ConnectionState.DECIDING:
        assert held_before
        assert events == []
    elif kind in SERVER_ACCEPTS[state]:
        assert failed == []
        answered_at_once = kind in {FrameType.PING, FrameType.PONG}
        assert len(events) == (0 if answered_at_once else 1)
    elif kind in SERVER_HOLDS.get(state, ()):
        assert events == []
        assert rig.connection.is_held
    else:
        expected = ErrorCode.MAGIC_WRONG if state is ConnectionState.START else ErrorCode.FRAME_UNEXPECTED
        assert failed == [expected]
        assert len(events) == 1
        ((_, last_words),) = rig.sent()
        assert isinstance(last_words, frames.Refused | frames.Error)
        assert last_words.code == expected


@pytest.mark.parametrize("kind", sorted(STREAM_ACCEPTS[StreamState.RECEIVING]), ids=lambda kind: kind.name)
@pytest.mark.parametrize("state", list(StreamState), ids=lambda state: state.name)
def test_a_stream_accepts_exactly_the_frames_in_its_table(state: StreamState, kind: FrameType) -> None:
    rig = welcomed()
    if state is StreamState.OPENING:
        rig.feed(open_frame(1))
    else:
        open_stream(rig, 1)
        if state is StreamState.FINISHING:
            rig.feed(codec.encode(frames.Finish(100), 1))
    stream = rig.connection.streams.get(1)
    assert stream is not None
    assert stream.state is state
    events = rig.feed(EXAMPLES[kind])
    assert (len(events) == 1) is (kind in STREAM_ACCEPTS[state])
    assert rig.connection.is_held is (kind not in STREAM_ACCEPTS[state])
    assert rig.connection.state is ConnectionState.OPEN


# Arbitrary bytes.

_ANY_FRAME = st.builds(
    lambda kind, flags, stream, body, lie: codec.PREFIX.pack(kind, flags, stream, max(len(body) + lie, 0)) + body,
    st.one_of(st.sampled_from(list(FrameType)), st.integers(0, 255)),
    st.sampled_from([0, 0, 0, 0, 1]),
    st.sampled_from([0, 1, 2, 3, 65535]),
    st.binary(max_size=80),
    st.sampled_from([0, 0, 0, 0, 1, -1, 9000, 2**31]),
)
_MUTATED = st.builds(
    lambda raw, at, bits: raw[: at % len(raw)] + bytes([raw[at % len(raw)] ^ bits]) + raw[at % len(raw) + 1 :],
    st.sampled_from(list(EXAMPLES.values())),
    st.integers(0, 200),
    st.integers(0, 255),
)
GARBAGE = st.lists(
    st.one_of(st.sampled_from(list(EXAMPLES.values())), _MUTATED, _ANY_FRAME, st.binary(max_size=60)), max_size=12
).map(b"".join)
SIZES = st.lists(st.integers(1, 200), max_size=60)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(list(ConnectionState)), GARBAGE, SIZES)
def test_garbage_never_raises_and_costs_bounded_memory(
    state: ConnectionState, garbage: bytes, sizes: list[int]
) -> None:
    rig = STATES[state]()
    pool = rig.pool
    events = rig.feed(garbage, sizes)
    connection = rig.connection
    failures = [event for event in events if isinstance(event, ConnectionFailed)]
    assert len(failures) <= 1
    assert failures == [] or (events[-1] is failures[0] and connection.state is ConnectionState.CLOSING)
    assert connection.streams.unacknowledged_bytes >= 0
    assert len(connection.streams) <= LIMITS.streams_max
    assert pool.lent <= 1
    if state in {ConnectionState.START, ConnectionState.DECIDING, ConnectionState.CHALLENGED, ConnectionState.CLOSING}:
        assert pool.lent_max == 0, "no memory is borrowed before authentication"
    connection.check_time(rig.now + 1)
    connection.close()
    assert pool.lent == 0


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(GARBAGE, st.sampled_from(["START", "DECIDING", "OPEN"]), st.lists(st.integers(1, 60), max_size=40))
def test_a_client_never_raises_whatever_a_server_sends(garbage: bytes, state: str, sizes: list[int]) -> None:
    client = ClientConnection(SECRET_HELLO)
    if state == "OPEN":
        client.receive(EXAMPLES[FrameType.WELCOME])
        client.open(frames.Open(Disposition.RESUME_OR_CREATE, SIZE_UNKNOWN, "log"))
        client.chunk(1, 0, b"data")
    elif state == "DECIDING":
        client.receive(EXAMPLES[FrameType.CHALLENGE])
    for size in [*sizes, len(garbage)]:
        client.receive(garbage[:size])
        garbage = garbage[size:]
    assert client.window_left_bytes >= 0


# The window.


class _Caller:
    """A caller that answers in any order, and counts what is charged to the window independently."""

    def __init__(self) -> None:
        self.pool = Pool(leases_max=2)
        self.rig = welcomed(self.pool, replace(LIMITS, window_bytes=2**32 - 1))
        self.pending: dict[int, list[int]] = {}
        self.number = 0

    def take(self, events: list[ServerEvent]) -> None:
        for event in events:
            if isinstance(event, ChunksReceived):
                self.pending[event.stream].append(event.charged_bytes)

    def act(self, step: tuple[str, int, int]) -> None:
        what, which, size = step
        numbers = sorted(self.pending)
        if what == "open" or not numbers:
            if len(numbers) < LIMITS.streams_max:
                self.number += 1
                open_stream(self.rig, self.number)
                self.pending[self.number] = []
            return
        number = numbers[which % len(numbers)]
        connection = self.rig.connection
        if what == "send":
            self.take(self.rig.feed(chunk(number, which * 100, bytes([which]) * size)))
        elif what == "corrupt":
            self.take(self.rig.feed(corrupt(number, self.number * 1000 + which, b"x" * size)))
        elif what == "acknowledge" and self.pending[number]:
            connection.acknowledge(number, 0, [], self.pending[number].pop())
        elif what == "refuse" and self.pending[number]:
            settled = self.pending[number].pop()
            connection.refuse_range(number, Span(0, settled), ErrorCode.TOO_MANY_GAPS, settled)
        elif what == "end":
            connection.aborted(number, 1)
            del self.pending[number]
        self.pending = {each: sizes for each, sizes in self.pending.items() if each in connection.streams}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "send", "send", "send", "corrupt", "acknowledge", "refuse", "end"]),
        st.integers(0, 50),
        st.sampled_from([1, 5, 3000, 40_000]),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_the_window_counts_bytes_in_flight_and_returns_to_zero(steps: list[tuple[str, int, int]]) -> None:
    caller = _Caller()
    streams = caller.rig.connection.streams
    for step in steps:
        caller.act(step)
        assert streams.unacknowledged_bytes == sum(map(sum, caller.pending.values()))
        caller.rig.sent()
    for number in streams.numbers():
        caller.rig.connection.finished(number, frames.Finished(1, 0, 0))
    assert streams.unacknowledged_bytes == 0
    assert not streams.has_work
    caller.rig.connection.close()
    assert caller.pool.lent == 0
