"""Whatever memory is taken back and when: each chunk is received once, with its bytes, or asked for again. §9"""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import codec, frames
from protocol.constants import FrameType
from protocol.errors import ErrorCode
from protocol.events import ChunkRefused, ChunksReceived, ServerEvent
from protocol.frame_buffer import PATIENCE_S
from tests.support.server_rig import LIMITS, TIMERS, Pool, ServerRig, chunk, with_stream

KIB = 1024
CLASSES = (20 * KIB, 68 * KIB, 260 * KIB)
PATTERN = bytes(at * 31 % 251 for at in range(70_000))
PATIENT = replace(
    LIMITS,
    window_bytes=2**30,
    timers=replace(TIMERS, rate_min_bytes_per_s=0, idle_timeout_s=1e9, keepalive_s=1e9, rate_window_s=1e9),
)

CHUNKS = st.lists(
    st.tuples(st.sampled_from([1, 100, 8150, 9000, 33_000, 65_536]), st.sampled_from(list(codec.CHUNK_HEADERS))),
    min_size=1,
    max_size=6,
)
PIECES = st.lists(st.one_of(st.integers(1, 300), st.integers(1, 30_000), st.integers(1, 150_000)), max_size=40)
LOOKS = st.lists(st.sampled_from([0.0, 0.5, 1.0, PATIENCE_S, 200.0]), min_size=1, max_size=10)


def fed(rig: ServerRig, raw: bytes, sizes: Sequence[int], looks: Sequence[float]) -> tuple[list[ServerEvent], int]:
    """Feed `raw` in pieces. After each one time passes, and what is slow by then loses its memory."""
    events: list[ServerEvent] = []
    buffer, drops = rig.connection._reader.buffer, 0
    for number, size in enumerate((*sizes, len(raw))):
        piece, raw = raw[:size], raw[size:]
        events += rig.feed(piece)
        rig.now += looks[number % len(looks)]
        rig.connection.check_time(rig.now)
        rig.pool.poison()
        if buffer.is_slow:
            buffer.drop()
            drops += 1
            assert rig.pool.lent == 0
    return events, drops


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(CHUNKS, PIECES, LOOKS, st.integers(1, 2))
def test_each_chunk_is_received_whole_or_asked_for_again(
    chunks: list[tuple[int, FrameType]], sizes: list[int], looks: list[float], leases_max: int
) -> None:
    rig = with_stream(Pool(leases_max, lease_bytes=CLASSES[-1], classes=CLASSES), PATIENT)
    check(rig, chunks, sizes, looks)


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([100, 9000, 20_000]), min_size=1, max_size=2), LOOKS)
def test_byte_by_byte_too(sizes: list[int], looks: list[float]) -> None:
    rig = with_stream(Pool(1, lease_bytes=CLASSES[-1], classes=CLASSES), PATIENT)
    check(rig, [(size, FrameType.CHUNK) for size in sizes], [1] * (sum(sizes) + 25 * len(sizes)), looks)


def check(
    rig: ServerRig, chunks: Sequence[tuple[int, FrameType]], sizes: Sequence[int], looks: Sequence[float]
) -> None:
    """Feed the chunks, which follow each other with a gap, and compare with the bytes that were sent."""
    raw, sent, start = b"", {}, 0
    for size, kind in chunks:
        sent[start] = PATTERN[start % 1000 : start % 1000 + size]
        raw += chunk(1, start, sent[start], kind)
        start += size + 1
    events, drops = fed(rig, raw, sizes, looks)
    received = {
        event.start: b"".join(bytes(each) for each in event.data)
        for event in events
        if isinstance(event, ChunksReceived)
    }
    asked = {}
    for _, frame in rig.sent():
        assert isinstance(frame, frames.Nack)
        assert frame.code == ErrorCode.CHUNK_DROPPED
        asked[frame.start_byte] = sent[frame.start_byte]
        assert frame.end_byte == frame.start_byte + len(sent[frame.start_byte]) - 1
    assert received.keys().isdisjoint(asked)
    assert received | asked == sent
    assert len(asked) == drops == sum(isinstance(event, ChunkRefused) for event in events)
    assert all(len(each) + 28 > 8192 for each in asked.values())
    rig.connection.close()
    assert rig.pool.lent == 0
