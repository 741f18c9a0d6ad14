"""A device's bytes have the same effect however they are split. PROTOCOL.md §5 and §9."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import codec, frames
from protocol.constants import SIZE_UNKNOWN, Disposition, FrameType, UploadState
from protocol.events import FinishRequested, HelloReceived, OpenRequested, ServerEvent
from protocol.server import ServerLimits
from tests.support.server_rig import (
    HELLO,
    LIMITS,
    Pool,
    Sent,
    ServerRig,
    by_stream,
    chunk,
    corrupt,
    frame,
    merged,
    open_stream,
    opened_of,
    welcome_of,
    welcomed,
)

STREAMS = (1, 2)
FORMS = st.sampled_from(list(codec.CHUNK_HEADERS))
WIDE = replace(LIMITS, window_bytes=2**30, streams_max=100)
PATTERN = bytes(at * 7 % 253 for at in range(70_000))

Script = list[bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The events and the answers that a device's bytes caused, in order."""

    events: list[ServerEvent]
    sent: bytes
    unacknowledged_bytes: int


def data_at(start: int, size: int) -> bytes:
    return bytes(PATTERN[start % 100 : start % 100 + size])


@st.composite
def runs(draw: st.DrawFn) -> Script:
    """Many small chunks of one size, which the server gathers; a few are corrupt or misplaced."""
    kind, stream = draw(FORMS), draw(st.sampled_from(STREAMS))
    size, start, count = draw(st.integers(1, 40)), draw(st.integers(0, 1000)), draw(st.integers(1, 60))
    frames_ = [chunk(stream, start + at * size, data_at(at, size), kind) for at in range(count)]
    if draw(st.booleans()):
        odd = draw(st.integers(0, count - 1))
        shift = draw(st.sampled_from([0, 1, -1]))
        make = draw(st.sampled_from([corrupt, chunk]))
        frames_[odd] = make(stream, max(start + odd * size + shift, 0), data_at(odd, size), kind)
    return frames_


@st.composite
def turns(draw: st.DrawFn) -> Script:
    """Many small chunks of one size on both streams, in any order; a few are corrupt or misplaced."""
    kind, size = draw(FORMS), draw(st.integers(1, 40))
    order = draw(st.lists(st.sampled_from((*STREAMS, 50)), min_size=1, max_size=60))
    ends, made = dict.fromkeys(STREAMS, draw(st.integers(0, 1000))), []
    for number in order:
        start = ends.get(number, 0) + draw(st.sampled_from([0] * 30 + [1]))
        make = draw(st.sampled_from([chunk] * 30 + [corrupt]))
        made.append(make(number, start, data_at(start, size), kind))
        ends[number] = start + size
    return made


@st.composite
def large(draw: st.DrawFn) -> Script:
    """A few large chunks, which the server receives into leased memory."""
    kind, stream = draw(FORMS), draw(st.sampled_from(STREAMS))
    sizes = draw(st.lists(st.sampled_from([4095, 9000, 33_000, 65_536]), min_size=1, max_size=4))
    start, made = draw(st.integers(0, 2**31)), []
    for size in sizes:
        make = draw(st.sampled_from([chunk, chunk, chunk, corrupt]))
        made.append(make(stream, start, data_at(size, size), kind))
        start += size
    return made


CONTROL: st.SearchStrategy[Script] = st.sampled_from(
    [
        [codec.encode(frames.Ping(7))],
        [codec.encode(frames.Pong(7))],
        [codec.encode(frames.Refresh("x" * 3000))],
        [codec.encode(frames.Query("log.bin"), 9)],
        [codec.encode(frames.Finish(10**9), 2)],
        [codec.encode(frames.Abort(), 1)],
        [frame(0xF1, bytes(5000))],
        [frame(0x80)],
        [chunk(50, 0, b"never opened")],
        [codec.encode(frames.Finish(5), 60)],
    ]
)

ENDS: st.SearchStrategy[Script] = st.sampled_from(
    [
        [],
        [frame(0x7E)],
        [codec.encode(frames.Ping(1))[:-1]],
        [chunk(1, 0, PATTERN[:60_000])[:-1]],
        [codec.PREFIX.pack(FrameType.CHUNK, 0, 1, 2**32 - 1), bytes(3000)],
        [frame(FrameType.PING, bytes(3)), codec.encode(frames.Ping(1))],
        [codec.encode(frames.Ack(1), 1)],
        [frame(FrameType.CHUNK, bytes(17), stream=1), chunk(1, 0, b"late")],
    ]
)


def concatenated(parts: Sequence[Script]) -> Script:
    return [raw for part in parts for raw in part]


SCRIPTS = st.builds(
    lambda parts, end: concatenated([*parts, end]),
    st.lists(st.one_of(runs(), turns(), large(), CONTROL), min_size=1, max_size=8),
    ENDS,
)
SIZES = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 3000), st.integers(1, 150_000)), max_size=200)


def outcome(raw: bytes, sizes: Sequence[int], pool: Pool, limits: ServerLimits = WIDE) -> Outcome:
    """Feed `raw` with streams 1 and 2 open. The caller answers nothing: all output comes from the protocol itself."""
    rig = welcomed(pool, limits)
    for number in STREAMS:
        open_stream(rig, number)
    events = merged(by_stream(rig.feed(raw, sizes)))
    result = Outcome(events, rig.connection.data_to_send(rig.now), rig.connection.streams.unacknowledged_bytes)
    rig.connection.close()
    assert pool.lent == 0
    return result


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(SCRIPTS, SIZES, st.integers(1, 3), st.sampled_from([66_000, 150_000, 300_000]))
def test_any_split_gives_the_same_events_and_answers(
    script: Script, sizes: list[int], leases_max: int, lease_bytes: int
) -> None:
    raw = b"".join(script)
    expected = outcome(raw, [len(each) for each in script], Pool())
    assert outcome(raw, sizes, Pool(leases_max, lease_bytes)) == expected
    assert outcome(raw, [], Pool(leases_max, lease_bytes, shared_bytes=16 * 1024)) == expected


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(runs(), turns(), CONTROL), min_size=1, max_size=3), ENDS)
def test_byte_by_byte_gives_the_same_events_and_answers(parts: list[Script], end: Script) -> None:
    raw = b"".join(concatenated([*parts, [each[:500] for each in end]]))
    assert outcome(raw, [1] * len(raw), Pool(1)) == outcome(raw, [], Pool())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 24, 25, 26, 33, 100, 8191, 8192, 8193, 65_535, 65_536])
def test_pieces_of_one_size_give_the_same_events_and_answers(size: int) -> None:
    script = [chunk(1, at * 30, data_at(at, 30)) for at in range(20)]
    script += [codec.encode(frames.Ping(3)), corrupt(1, 600, b"evil")]
    script += [chunk(2, at * 900, data_at(at, 900), FrameType.CHUNK_CRC32C) for at in range(20)]
    script += [frame(0xF0, bytes(100)), codec.encode(frames.Finish(10**6), 2)]
    if size > 8:
        script += [chunk(2, 40_000 + at * 40_000, PATTERN[:40_000]) for at in range(3)]
    raw = b"".join(script)
    assert outcome(raw, [size] * (len(raw) // size), Pool(1)) == outcome(raw, [], Pool())


# With a caller that answers. Outputs are compared stream by stream, since the split decides how ACKs interleave.


def converse(raw: bytes, sizes: Sequence[int], pool: Pool) -> tuple[list[ServerEvent], dict[int, list[Sent]]]:
    """Feed `raw` with a caller that answers each event at once."""
    rig = ServerRig(pool, WIDE)
    seen: list[ServerEvent] = []
    events = rig.feed(raw, sizes)
    rest = list(sizes)
    while events or rig.unfed:
        assert events, "input waits, but no event asks for an answer"
        for event in events:
            answer(rig, event)
        seen += events
        events = rig.resume(rest)
    sent: dict[int, list[Sent]] = {}
    for number, frame_ in rig.sent():
        sent.setdefault(number, []).append((number, frame_))
    rig.connection.close()
    assert pool.lent == 0
    return merged(seen), sent


def answer(rig: ServerRig, event: ServerEvent) -> None:
    match event:
        case HelloReceived():
            rig.connection.welcome(welcome_of(WIDE))
        case OpenRequested(number, request):
            if request.name.startswith("done"):
                rig.connection.opened(number, opened_of(4, UploadState.COMPLETE), 4)
            else:
                rig.connection.opened(number, opened_of(), request.size)
        case FinishRequested(number, finish):
            rig.connection.finished(number, frames.Finished(42, finish.size, 0))


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Pipelined conversations: HELLO, OPENs, their chunks and FINISHes, without waiting for any answer."""
    script = [codec.encode(HELLO)]
    for number in range(1, draw(st.integers(1, 6)) + 1):
        name = draw(st.sampled_from(["log", "done", ""]))
        script.append(codec.encode(frames.Open(Disposition.RESUME_OR_CREATE, SIZE_UNKNOWN, name), number))
        size, count = draw(st.sampled_from([(1, 30), (100, 10), (3000, 9), (30_000, 3)]))
        script += [chunk(number, at * size, data_at(at, size), draw(FORMS)) for at in range(count)]
        script.append(codec.encode(frames.Finish(size * count), number))
    return b"".join(script)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(conversations(), SIZES, st.integers(1, 3))
def test_pipelined_requests_get_the_same_answers_however_they_are_split(
    raw: bytes, sizes: list[int], leases_max: int
) -> None:
    assert converse(raw, sizes, Pool(leases_max, lease_bytes=70_000)) == converse(raw, [], Pool())
