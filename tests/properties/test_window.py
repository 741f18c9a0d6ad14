"""A device that keeps to its own count never exceeds the server's, and never waits for ever. PROTOCOL.md §11.2."""

from collections import deque
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device.pending import Pending
from protocol import frames
from protocol.client import ClientConnection
from protocol.constants import CHUNK_OVERHEAD_BYTES, Disposition, FrameType
from protocol.errors import ErrorCode
from protocol.events import Answered, ChunksReceived, Failed, FinishRequested, OpenRequested, ServerEvent
from protocol.ranges import DigestedRange, RangeSet, Span
from tests.support.server_rig import HELLO, LIMITS, ServerRig, opened_of, welcome_of

SIZE = 400
CHUNK_BYTES_MAX = 50
WINDOWS = st.sampled_from([CHUNK_BYTES_MAX + CHUNK_OVERHEAD_BYTES, 700, 3000])
STREAM = 1
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["send", "send", "send", "corrupt", "lose"]), st.integers(1, CHUNK_BYTES_MAX)),
        st.tuples(st.sampled_from(["up", "down"]), st.integers(1, 200)),
        st.tuples(st.sampled_from(["cut", "record", "refuse", "finish"]), st.just(0)),
    ),
    max_size=80,
)


@dataclass(slots=True)
class Server:
    """Takes and answers chunks as the daemon's ingest does. Some bytes came before, and are not durable yet."""

    rig: ServerRig
    have: RangeSet
    durable: tuple[DigestedRange, ...] = ()
    cuts: deque[tuple[tuple[DigestedRange, ...], int]] = field(default_factory=deque)
    unanswered_bytes: int = 0
    duplicate_bytes: int = 0
    refuses_next: bool = False

    def take(self, event: ServerEvent) -> None:
        connection = self.rig.connection
        if isinstance(event, FinishRequested) and (missing := self.have.missing(0, SIZE)):
            connection.refuse_range(event.stream, missing[0], ErrorCode.INCOMPLETE, 0)
        if not isinstance(event, ChunksReceived):
            return
        gaps = self.have.missing(event.start, event.end)
        if not gaps:
            self._take_duplicate(event)
        elif self.refuses_next:
            self.refuses_next = False
            refused = Span(event.start, event.end)
            connection.refuse_range(event.stream, refused, ErrorCode.TOO_MANY_GAPS, event.charged_bytes)
        else:
            for gap in gaps:
                self.have.add(gap.start, gap.end, 0)
            self.unanswered_bytes += event.charged_bytes

    def _take_duplicate(self, event: ChunksReceived) -> None:
        if any(each.start <= event.start and event.end <= each.end for each in self.durable):
            self._acknowledge(event.charged_bytes)
        else:
            self.duplicate_bytes += event.charged_bytes

    def cut(self) -> None:
        self.cuts.append((self.have.snapshot(), self.unanswered_bytes))
        self.unanswered_bytes = 0

    def record(self) -> None:
        if self.cuts:
            self.durable, answered_bytes = self.cuts.popleft()
            self._acknowledge(answered_bytes + self.duplicate_bytes)
            self.duplicate_bytes = 0

    def _acknowledge(self, answered_bytes: int) -> None:
        durable = RangeSet(self.durable)
        beyond = [Span(each.start, each.end) for each in durable.beyond_next()]
        self.rig.connection.acknowledge(STREAM, durable.next_expected_byte, beyond, answered_bytes)


class Device:
    """Sends what is missing within its window, and nothing that it knows to be under way. Frames take their time."""

    def __init__(self, window_bytes: int, came_before: Span) -> None:
        limits = replace(LIMITS, window_bytes=window_bytes, chunk_bytes_max=CHUNK_BYTES_MAX)
        self.server = Server(ServerRig(limits=limits), RangeSet())
        if came_before.start < came_before.end:
            self.server.have.add(came_before.start, came_before.end, 0)
        self.client = ClientConnection(HELLO)
        self.client.open(frames.Open(Disposition.RESUME_OR_CREATE, SIZE, "log.bin"))
        self.pending = Pending(SIZE, 0, ())
        self.up: deque[bytes] = deque()
        self.down = bytearray()
        self.is_over = False
        connection = self.server.rig.connection
        self.server.rig.feed(b"".join(self.client.data_to_send()))
        connection.welcome(welcome_of(limits))
        (opening,) = self.server.rig.resume()
        assert isinstance(opening, OpenRequested)
        connection.opened(STREAM, opened_of(), SIZE)
        self.carry_up(0)
        self.carry_down(len(self.down))

    def send(self, size: int, fate: str = "") -> None:
        room = min(self.client.window_left_bytes, size)
        if not self.pending or not room:
            return
        span = self.pending.take(room)
        self.client.chunk(STREAM, span.start, bytes(span.end - span.start), FrameType.CHUNK)
        raw = bytearray(b"".join(self.client.data_to_send()))
        if fate == "corrupt":
            raw[-1] ^= 1
        if fate != "lose":
            self.up.append(bytes(raw))

    def finish(self) -> None:
        # At any time: where lost chunks fill the window, the answer tells of them.
        self.client.finish(STREAM, frames.Finish(SIZE))
        self.up.append(b"".join(self.client.data_to_send()))

    def carry_up(self, count: int) -> None:
        for _ in range(min(count, len(self.up))):
            # One by one, as the daemon answers before it takes much more.
            for event in self.server.rig.feed(self.up.popleft()):
                self.server.take(event)
        self.down += self.server.rig.connection.data_to_send(0)

    def carry_down(self, count: int) -> None:
        heard, self.down = bytes(self.down[:count]), self.down[count:]
        for event in self.client.receive(heard):
            if isinstance(event, Failed):
                assert event.error.code == ErrorCode.NACKS_EXHAUSTED
                self.is_over = True
            elif isinstance(event, Answered) and isinstance(event.frame, frames.Nack):
                self.pending.add(Span(event.frame.start_byte, event.frame.end_byte + 1))

    def act(self, step: tuple[str, int]) -> None:
        match step:
            case ("up", count):
                self.carry_up(count // 20 + 1)
            case ("down", count):
                self.carry_down(count)
            case ("cut", _):
                self.server.cut()
            case ("record", _):
                self.server.record()
            case ("refuse", _):
                self.server.refuses_next = True
            case ("finish", _):
                self.finish()
            case (fate, size):
                self.send(size, fate)

    def settle(self) -> None:
        """Let everything that is under way arrive, and become durable."""
        self.carry_up(len(self.up))
        self.server.cut()
        while self.server.cuts:
            self.server.record()
        self.carry_up(0)
        self.carry_down(len(self.down))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(WINDOWS, st.tuples(st.integers(0, 300), st.integers(0, 300)), STEPS)
def test_a_device_that_counts_never_exceeds_the_window_and_always_comes_to_an_end(
    window_bytes: int, came_before: tuple[int, int], steps: list[tuple[str, int]]
) -> None:
    device = Device(window_bytes, Span(*came_before))
    for step in steps:
        device.act(step)
    for _ in range(4 * SIZE):
        device.settle()
        if device.is_over or device.server.have.total_bytes == SIZE:
            break
        device.send(CHUNK_BYTES_MAX)
        device.finish()
    device.settle()
    assert device.is_over or device.server.have.total_bytes == SIZE
    device.settle()
    assert device.server.rig.connection.streams.unacknowledged_bytes == 0
    assert device.client.unanswered_bytes == 0
    assert device.client.window_left_bytes == window_bytes - CHUNK_OVERHEAD_BYTES
