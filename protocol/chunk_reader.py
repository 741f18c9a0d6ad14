"""Frames out of received bytes at the server, chunks gathered into runs. PROTOCOL.md §9."""

from functools import lru_cache

from protocol.chunks import (
    CHECKSUM_KINDS,
    Chunk,
    ChunkFault,
    ChunkRun,
    Piece,
    gather_equal,
    gather_mixed,
    is_worth_gathering,
    read_chunk,
    take_turns,
)
from protocol.constants import OFFSET_MAX, Feature, FrameType
from protocol.events import ServerEvent
from protocol.frame_buffer import BufferSource
from protocol.reader import FrameReader, Head
from protocol.state import STREAM_ACCEPTS
from protocol.streams import Stream, Streams

GATHERED_FRAMES_PER_COST = 32
"""Gathered frames cost as much as one by itself: 15 µs, most of it for their bytes."""

RUN_COST = 2
"""Of a run beside its frames: the caller writes and answers each run by itself."""

_FEATURE_OF = {FrameType.CHUNK_COMPACT: Feature.CHUNK_COMPACT, FrameType.CHUNK_CRC32C: Feature.CHUNK_CRC32C}

# One for all connections in their handshake: each `frozenset()` is an object of its own.
_NO_FORMS: frozenset[FrameType] = frozenset()


@lru_cache(maxsize=8)  # every connection with these features shares one set
def forms_of(features: Feature) -> frozenset[FrameType]:
    """The forms of chunk that are in force with these features."""
    return frozenset(kind for kind in CHECKSUM_KINDS if kind not in _FEATURE_OF or _FEATURE_OF[kind] in features)


class ChunkReader(FrameReader):
    """A reader that also takes chunks. `forms` are those in force.

    `cost` adds up what the gathered frames cost, in units of about 15 µs.
    """

    # It extends the frame reader and is no object beside it: each idle connection would pay for one.
    __slots__ = ("_run", "cost", "forms")

    def __init__(self, source: BufferSource) -> None:
        super().__init__(source)
        self.forms = _NO_FORMS
        self.cost = 0
        self._run: ChunkRun | None = None

    def take_chunks(
        self, kind: FrameType, head: Head, stream: Stream, streams: Streams, events: list[ServerEvent]
    ) -> ChunkFault | None:
        """Consume the chunk at the front; when it is intact, also those of equal size behind it that continue runs.

        Intact chunks join the run under way. `events` gets that run when they do not continue it.
        Raises ProtocolError WINDOW_EXCEEDED.
        """
        buffer = self.buffer
        chunk = read_chunk(buffer.view, buffer.begin, kind, stream.size)
        if isinstance(chunk, ChunkFault):
            self.consume(head.frame_bytes)
            return chunk
        count, data = self._gather(kind, head, chunk, stream)
        if count == 1 and take_turns(buffer.view, buffer.begin, buffer.end, kind, len(chunk.data)):
            self._take_mixed(kind, head, len(chunk.data), streams, events)
            return None
        end = chunk.start + count * len(chunk.data)
        streams.receive(stream, end - chunk.start, count)
        # Chunks small enough to be gathered have no CRC32C of their own.
        self._run_for(kind, head.stream, chunk.start, events).add(end, data, count, chunk.crc32c)
        self.consume(count * head.frame_bytes)
        self.cost += count // GATHERED_FRAMES_PER_COST
        return None

    def _gather(self, kind: FrameType, head: Head, chunk: Chunk, stream: Stream) -> tuple[int, Piece]:
        """The number of chunks at the front that continue `chunk`, itself included, and their data."""
        buffer, data_bytes = self.buffer, len(chunk.data)
        like_it = (min(stream.size, OFFSET_MAX) - chunk.start) // data_bytes
        left = min(buffer.end - buffer.begin, like_it * head.frame_bytes)
        if is_worth_gathering(kind, data_bytes, left):
            return gather_equal(buffer.view, buffer.begin, buffer.begin + left, kind, chunk)
        return 1, chunk.data

    def _take_mixed(
        self, kind: FrameType, head: Head, data_bytes: int, streams: Streams, events: list[ServerEvent]
    ) -> None:
        """Consume the intact chunk at the front and those behind it, whichever streams they belong to."""

        taking: dict[int, Stream] = {}

        def size_of(number: int) -> int:
            stream = streams.get(number)
            if stream is None or kind not in STREAM_ACCEPTS[stream.state]:
                return 0
            taking[number] = stream
            return stream.size

        buffer = self.buffer
        count, found = gather_mixed(buffer.view, buffer.begin, buffer.end, kind, data_bytes, size_of)
        for each in found:
            streams.receive(taking[each.stream], each.end - each.start, each.count)
            self._run_for(kind, each.stream, each.start, events).add(each.end, each.data, each.count)
        self.consume(count * head.frame_bytes)
        self.cost += count // GATHERED_FRAMES_PER_COST + RUN_COST * len(found)

    def _run_for(self, kind: FrameType, number: int, start: int, events: list[ServerEvent]) -> ChunkRun:
        """The run under way if a chunk at `start` continues it, else a new one."""
        checksum, run = CHECKSUM_KINDS[kind], self._run
        if run is None or not run.takes(number, checksum, start):
            self.flush(events)
            run = self._run = ChunkRun(number, checksum, start, start)
        return run

    def flush(self, events: list[ServerEvent]) -> None:
        """End the run under way, if there is one, and add it to `events`."""
        if self._run is not None:
            events.append(self._run.event(self.buffer.lease, self.buffer.borrow))
            self._run = None
