"""A server's end fed from memory: a pool that detects use after return, any split of input, and sample frames."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, repeat

from protocol import codec, frames
from protocol.checksum import crc32c
from protocol.constants import (
    SIZE_UNKNOWN,
    CredentialKind,
    Disposition,
    Durability,
    Feature,
    FrameType,
    UploadState,
)
from protocol.events import ChunksReceived, HelloReceived, OpenRequested, ServerEvent
from protocol.frame_buffer import Borrower
from protocol.server import ServerConnection, ServerLimits
from protocol.server_output import WAIT_MS
from protocol.timers import TimerSettings

POISON = 0xAA
"""The value of every byte in returned memory."""

WHOLE = 2**31
"""A split larger than any input: everything at once."""

ALL_FEATURES = Feature.CHUNK_COMPACT | Feature.CHUNK_CRC32C | Feature.SHA256

TIMERS = TimerSettings(
    handshake_timeout_s=10, keepalive_s=30, idle_timeout_s=90, rate_min_bytes_per_s=100, rate_window_s=10
)

LIMITS = ServerLimits(
    chunk_bytes_max=64 * 1024, window_bytes=1024 * 1024, streams_max=4, features=ALL_FEATURES, timers=TIMERS
)

Sent = tuple[int, frames.ControlFrame]


class PoolLease:
    """One piece of a pool, poisoned when its last holder releases it."""

    def __init__(self, pool: "Pool", size_bytes: int) -> None:
        self._pool = pool
        self._memory = bytearray(size_bytes)
        self.holders = 1

    @property
    def view(self) -> memoryview:
        assert self.holders > 0, "memory is used after it was returned"
        return memoryview(self._memory)

    @property
    def is_shared(self) -> bool:
        return self.holders > 1

    def retain(self) -> None:
        assert self.holders > 0, "memory is retained after it was returned"
        self.holders += 1

    def release(self) -> None:
        assert self.holders > 0, "memory is returned twice"
        self.holders -= 1
        if not self.holders:
            self._memory[:] = bytes([POISON]) * len(self._memory)
            self._pool.lent -= 1


class Pool:
    """Lends at most `leases_max` pieces of `lease_bytes`, or of the first of `classes` that is enough."""

    def __init__(
        self,
        leases_max: int = 4,
        lease_bytes: int = 320 * 1024,
        shared_bytes: int = 256 * 1024,
        classes: Sequence[int] = (),
    ) -> None:
        self._classes = classes
        self._shared = memoryview(bytearray(shared_bytes))
        self._lease_bytes = lease_bytes
        self.leases_max = leases_max
        self.lent = 0
        self.lent_max = 0

    @property
    def shared(self) -> memoryview:
        return self._shared

    def lease(self, size_bytes: int, borrower: Borrower | None = None) -> PoolLease | None:
        assert size_bytes > 0
        held = None if borrower is None else borrower.lease
        returned = held is not None and not held.is_shared
        if self.lent - returned >= self.leases_max:
            return None
        self.lent += 1
        self.lent_max = max(self.lent_max, self.lent - returned)
        return PoolLease(self, self._size_of(size_bytes))

    def try_lease(self, size_bytes: int, borrower: Borrower | None = None) -> PoolLease | None:
        return self.lease(size_bytes, borrower)

    def _size_of(self, wanted_bytes: int) -> int:
        return next((each for each in self._classes if each >= wanted_bytes), self._lease_bytes)

    def poison(self) -> None:
        """Overwrite the shared memory, as input of another connection would."""
        self._shared[:] = bytes([POISON]) * len(self._shared)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How to make a chunk wrong."""

    checksum_xor: int = 0
    end_byte: int | None = None


class ServerRig:
    """A server's end with its input and output."""

    def __init__(self, pool: Pool | None = None, limits: ServerLimits = LIMITS) -> None:
        self.pool = pool or Pool()
        self.limits = limits
        self.now = 1000.0
        self.unfed = b""
        self.connection = ServerConnection(limits, self.pool, self.now, lambda: WAIT_MS)

    def feed(self, data: bytes, sizes: Iterable[int] = ()) -> list[ServerEvent]:
        """Feed input in pieces of these sizes, then the rest, until it is held. The events hold copied data."""
        connection = self.connection
        rest = memoryview(self.unfed + data)
        events: list[ServerEvent] = []
        for size in chain(sizes, repeat(WHOLE)):
            piece, rest = rest[:size], rest[size:]
            while piece and not connection.is_held and not connection.is_starved:
                writable = connection.get_buffer()
                assert len(writable) > 0, "there must always be room to receive into"
                count = min(len(writable), len(piece))
                writable[:count] = piece[:count]
                piece = piece[count:]
                events += self._copied(connection.received(count, self.now))
                events += self._go_on()
            if piece or not rest:
                self.unfed = bytes(piece) + bytes(rest)
                return events
        raise AssertionError("unreachable: the sizes never end")

    def resume(self, sizes: Iterable[int] = ()) -> list[ServerEvent]:
        """Feed waiting input after an answer was given or memory came back."""
        events = self._copied(self.connection.resume(self.now))
        events += self._go_on()
        return events + self.feed(b"", sizes)

    def sent(self) -> list[Sent]:
        """The frames that were sent since the last call."""
        return list(parse(self.connection.data_to_send(self.now)))

    def _go_on(self) -> list[ServerEvent]:
        """Give the connection its next turns, and the free memory."""
        events: list[ServerEvent] = []
        while self.connection.has_more:
            events += self._copied(self.connection.resume(self.now))
        # A lease of its own is enough again once its events have ended.
        if self.connection.is_starved and (self.connection.has_lease or self.pool.lent < self.pool.leases_max):
            events += self._copied(self.connection.resume(self.now))
        return events

    def _copied(self, events: Sequence[ServerEvent]) -> list[ServerEvent]:
        self.pool.poison()
        return [copied(event) for event in events]


def copied(event: ServerEvent) -> ServerEvent:
    """The event with its data copied. Returns the event's lease."""
    if not isinstance(event, ChunksReceived):
        return event
    assert event.end - event.start == sum(len(piece) for piece in event.data)
    data = b"".join(event.data)
    if event.lease is not None:
        event.lease.release()
    return replace(event, data=(data,), lease=None)


def merged(events: Iterable[ServerEvent]) -> list[ServerEvent]:
    """The events with adjacent runs joined, since where a run ends depends on how the bytes were split.

    The split also decides which runs have a CRC32C. It is checked where there is one, and then left out.
    """
    result: list[ServerEvent] = []
    for event in map(_without_crc, events):
        last = result[-1] if result else None
        if (
            isinstance(event, ChunksReceived)
            and isinstance(last, ChunksReceived)
            and (last.stream, last.end, last.checksum) == (event.stream, event.start, event.checksum)
        ):
            data = (b"".join((*last.data, *event.data)),)
            result[-1] = replace(last, end=event.end, data=data, count=last.count + event.count)
        else:
            result.append(event)
    return result


def by_stream(events: Iterable[ServerEvent]) -> Iterator[ServerEvent]:
    """The events with chunks sorted by stream where no other event comes between them.

    How the bytes were split decides in which order chunks of different streams are gathered.
    """
    for are_chunks, group in groupby(events, lambda event: isinstance(event, ChunksReceived)):
        events = list(group)
        yield from sorted(events, key=_stream_of) if are_chunks else events


def _stream_of(event: ServerEvent) -> int:
    assert isinstance(event, ChunksReceived)
    return event.stream


def _without_crc(event: ServerEvent) -> ServerEvent:
    if not isinstance(event, ChunksReceived):
        return event
    assert event.crc32c in (None, crc32c(b"".join(event.data)))
    return replace(event, crc32c=None)


def parse(data: bytes) -> Iterator[Sent]:
    """The control frames of a server's output, each with its stream."""
    position = 0
    while position < len(data):
        kind, flags, stream, length = codec.PREFIX.unpack_from(data, position)
        assert flags == 0
        position += codec.PREFIX_BYTES
        yield stream, codec.decode(FrameType(kind), data[position : position + length])
        position += length
    assert position == len(data)


def frame(kind: int, body: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    """A frame of any type with any body."""
    return codec.PREFIX.pack(kind, flags, stream, len(body)) + body


def chunk(
    stream: int, start: int, data: bytes, kind: FrameType = FrameType.CHUNK, wrong: Refusal | None = None
) -> bytes:
    """A chunk frame, made wrong by `wrong`."""
    header = bytearray(codec.encode_chunk_header(kind, stream, start, data))
    if wrong is not None:
        header[-1] ^= wrong.checksum_xor
        if wrong.end_byte is not None:
            fields = list(codec.CHUNK_FRAMES[kind].unpack(header))
            fields[5] = wrong.end_byte
            header = bytearray(codec.CHUNK_FRAMES[kind].pack(*fields))
    return bytes(header) + data


def corrupt(stream: int, start: int, data: bytes, kind: FrameType = FrameType.CHUNK) -> bytes:
    """A chunk frame with a wrong checksum."""
    return chunk(stream, start, data, kind, Refusal(checksum_xor=1))


HELLO = frames.Hello(CredentialKind.TOKEN, features=ALL_FEATURES, frame_bytes_max=4096, ack_ranges_max=8, token="a.b.c")

SECRET_HELLO = frames.Hello(
    CredentialKind.DEVICE_SECRET,
    features=ALL_FEATURES,
    frame_bytes_max=4096,
    device="sensor-7",
    nonce=bytes(range(32)),
)


def welcome_of(limits: ServerLimits = LIMITS, features: int | None = None) -> frames.Welcome:
    """The answer of a server with these limits."""
    return frames.Welcome(
        version=1,
        durability=Durability.SYNC,
        ranges_max=32,
        streams_max=limits.streams_max,
        keepalive_s=30,
        features=limits.features if features is None else features,
        chunk_bytes_max=limits.chunk_bytes_max,
        window_bytes=limits.window_bytes,
        authority_s=3600,
        server_time_ms=1_700_000_000_000,
        connection_id=77,
    )


def open_frame(number: int, name: str = "log.bin", size: int = SIZE_UNKNOWN) -> bytes:
    """An OPEN."""
    return codec.encode(frames.Open(Disposition.RESUME_OR_CREATE, size, name), number)


def opened_of(next_expected_byte: int = 0, state: UploadState = UploadState.RECEIVING) -> frames.Opened:
    """The answer to an OPEN."""
    return frames.Opened(42, state, UploadState.NONE, next_expected_byte, expires_s=86400)


def welcomed(
    pool: Pool | None = None,
    limits: ServerLimits = LIMITS,
    hello: frames.Hello = HELLO,
    features: int | None = None,
) -> ServerRig:
    """A server's end after the handshake, with no output left."""
    rig = ServerRig(pool, limits)
    (event,) = rig.feed(codec.encode(hello))
    assert isinstance(event, HelloReceived)
    rig.connection.welcome(welcome_of(limits, features))
    assert rig.resume() == []
    assert rig.sent() == [(0, welcome_of(limits, features))]
    return rig


def open_stream(rig: ServerRig, number: int, size: int = SIZE_UNKNOWN, next_expected_byte: int = 0) -> None:
    """Open an upload and answer it, with no output left."""
    (event,) = rig.feed(open_frame(number, f"file-{number}", size))
    assert isinstance(event, OpenRequested)
    rig.connection.opened(number, opened_of(next_expected_byte), size)
    assert rig.resume() == []
    assert rig.sent() == [(number, opened_of(next_expected_byte))]


def with_stream(
    pool: Pool | None = None, limits: ServerLimits = LIMITS, size: int = SIZE_UNKNOWN, hello: frames.Hello = HELLO
) -> ServerRig:
    """A server's end with stream 1 open."""
    rig = welcomed(pool, limits, hello)
    open_stream(rig, 1, size)
    return rig
