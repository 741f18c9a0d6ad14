"""Frames out of received bytes at the server, chunks gathered into runs. PROTOCOL.md §9."""

from functools import lru_cache

from protocol.chunks import CHECKSUM_KINDS, ChunkFault, ChunkRun, Piece, gather_equal, is_worth_gathering, read_chunk
from protocol.constants import OFFSET_MAX, Feature, FrameType
from protocol.events import ServerEvent
from protocol.frame_buffer import BufferSource
from protocol.reader import FrameReader, Head
from protocol.streams import Stream, Streams

_FEATURE_OF = {FrameType.CHUNK_COMPACT: Feature.CHUNK_COMPACT, FrameType.CHUNK_CRC32C: Feature.CHUNK_CRC32C}

# One for all connections in their handshake: each `frozenset()` is an object of its own.
_NO_FORMS: frozenset[FrameType] = frozenset()


@lru_cache(maxsize=8)  # every connection with these features shares one set
def forms_of(features: Feature) -> frozenset[FrameType]:
    """The forms of chunk that are in force with these features."""
    return frozenset(kind for kind in CHECKSUM_KINDS if kind not in _FEATURE_OF or _FEATURE_OF[kind] in features)


class ChunkReader(FrameReader):
    """A reader that also takes chunks. `forms` are those in force."""

    # It extends the frame reader and is no object beside it: each idle connection would pay for one.
    __slots__ = ("_run", "forms")

    def __init__(self, source: BufferSource) -> None:
        super().__init__(source)
        self.forms = _NO_FORMS
        self._run: ChunkRun | None = None

    def take_chunks(
        self, kind: FrameType, head: Head, stream: Stream, streams: Streams, events: list[ServerEvent]
    ) -> ChunkFault | None:
        """Consume the chunk at the front; when it is intact, also those behind it that continue it in equal size.

        Intact chunks join the run under way. `events` gets that run when they do not continue it.
        Raises ProtocolError WINDOW_EXCEEDED.
        """
        buffer = self.buffer
        chunk = read_chunk(buffer.view, buffer.begin, kind, stream.size)
        if isinstance(chunk, ChunkFault):
            self.consume(head.frame_bytes)
            return chunk
        start, end = chunk.start, chunk.end
        count = 1
        data: Piece = chunk.data
        like_it = (min(stream.size, OFFSET_MAX) - start) // (end - start)
        left = min(buffer.end - buffer.begin, like_it * head.frame_bytes)
        if is_worth_gathering(kind, end - start, left):
            count, data = gather_equal(buffer.view, buffer.begin, buffer.begin + left, kind, chunk)
            end = start + count * (end - start)
        streams.receive(stream, end - start)
        checksum = CHECKSUM_KINDS[kind]
        run = self._run
        if run is None or not run.takes(head.stream, checksum, start):
            self.flush(events)
            run = self._run = ChunkRun(head.stream, checksum, start, start)
        # Chunks small enough to be gathered have no CRC32C of their own.
        run.add(end, data, count, chunk.crc32c)
        self.consume(count * head.frame_bytes)
        return None

    def flush(self, events: list[ServerEvent]) -> None:
        """End the run under way, if there is one, and add it to `events`."""
        if self._run is not None:
            events.append(self._run.event(self.buffer.lease, self.buffer.borrow))
            self._run = None
