"""One upload while it is being received: what has arrived, what is durable, who listens. PROTOCOL.md §7, §9."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from daemon.catalog.records import Upload
from protocol.checksum import Buffer, crc32c, crc32c_combine
from protocol.errors import ErrorCode
from protocol.ranges import DigestedRange, RangeSet, Span

TAKEN_OVER = "a later OPEN of the same name has taken the upload over"


class Listener(Protocol):
    """The stream of an upload, as it gets the results."""

    def acknowledged(self, next_expected_byte: int, beyond: Sequence[Span], answered_bytes: int) -> None:
        """All below `next_expected_byte`, and `beyond`, are durable. It answers chunks charged as `answered_bytes`."""
        ...

    def refused(self, refused: Span, code: ErrorCode, answered_bytes: int) -> None:
        """These bytes must be sent again. The stream stays open. It answers chunks charged as `answered_bytes`."""
        ...

    def verifying(self, wait_ms: int) -> None:
        """The digest takes about `wait_ms`."""
        ...

    def finished(self, upload: Upload) -> None:
        """The upload is complete. The stream is over."""
        ...

    def aborted(self, upload_id: int) -> None:
        """The upload is aborted, as the device asked. The stream is over."""
        ...

    def failed(self, code: ErrorCode, detail: str) -> None:
        """The stream is over, for this reason."""
        ...


@dataclass(slots=True, eq=False, weakref_slot=True)
class Allowance:
    """What a device may still store, shared by all its uploads of unknown size."""

    left_bytes: int


class Piece(NamedTuple):
    """Bytes to be written at an offset."""

    offset: int
    data: list[Buffer]


@dataclass(frozen=True, slots=True)
class Cut:
    """What one commit cycle makes durable of one upload. `received_s`: when its first byte came, None without bytes."""

    upload: "LiveUpload"
    epoch: int
    ranges: tuple[DigestedRange, ...]
    answered_bytes: int
    received_s: float | None


class LiveUpload:
    """Bytes that have arrived (`received`), those that are durable, and the stream on which they come.

    `unanswered_bytes` is what was charged for chunks that wait for a commit cycle, `duplicate_bytes` for such of bytes
    that were here already.
    """

    __slots__ = (
        "allowance",
        "crc32c_expected",
        "device",
        "duplicate_bytes",
        "durable",
        "epoch",
        "id",
        "is_finishing",
        "is_over",
        "listener",
        "name",
        "received",
        "received_s",
        "sha256",
        "sha256_expected",
        "sha256_wanted",
        "size",
        "tenant",
        "unanswered_bytes",
    )

    def __init__(self, record: Upload) -> None:
        self.id = record.id
        self.tenant = record.tenant
        self.device = record.device
        self.name = record.name
        self.durable = record.ranges
        self.received = RangeSet(record.ranges)
        self.size = record.size
        self.sha256: bytes | None = None
        self.sha256_expected = record.sha256_expected
        self.is_over = False
        self.received_s: float | None = None
        self.listener: Listener | None = None
        self.allowance: Allowance | None = None
        self.take_over(record)

    def take_over(self, record: Upload) -> None:
        """A new OPEN has the upload now. Bytes on their way to the disk stay."""
        if (record.size, record.sha256_expected) != (self.size, self.sha256_expected):
            # The digest is that of another size, or was not compared with the one expected now.
            self.sha256 = None
        self.epoch = record.epoch
        self.size = record.size
        self.crc32c_expected = record.crc32c_expected
        self.sha256_expected = record.sha256_expected
        self.sha256_wanted = record.sha256_expected is not None
        self.is_finishing = False
        self.unanswered_bytes = 0
        self.duplicate_bytes = 0
        self.allowance = None

    @property
    def next_expected_byte(self) -> int:
        """Every byte below it is durable."""
        return self.durable[0].end if self.durable and self.durable[0].start == 0 else 0

    @property
    def is_whole(self) -> bool:
        """Every byte of the declared size has arrived."""
        return self.size is not None and self.received.next_expected_byte == self.size

    def beyond(self) -> list[Span]:
        """The durable ranges above `next_expected_byte`."""
        first = 1 if self.durable and self.durable[0].start == 0 else 0
        return [Span(each.start, each.end) for each in self.durable[first:]]

    def is_durable(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is durable."""
        return any(each.start <= start and end <= each.end for each in self.durable)

    def take_in(
        self, start: int, data: Sequence[Buffer], gaps: Sequence[Span], data_crc32c: int | None = None
    ) -> list[Piece]:
        """Take the bytes of `gaps`, out of data that begins at `start`, into `received`; returns what to write.

        `data_crc32c` is that of all the data, where it is known.
        """
        pieces = []
        total = sum(map(len, data))
        for gap in gaps:
            parts = _slice(data, gap.start - start, gap.end - start)
            tail = self.received.tail(gap.start)
            crc = tail.crc32c if tail else 0
            if data_crc32c is not None and gap.end - gap.start == total:
                crc = crc32c_combine(crc, data_crc32c, total)
            else:
                for part in parts:
                    crc = crc32c(part, crc)
            if tail:
                self.received.extend(gap.start, gap.end, crc)
            else:
                self.received.add(gap.start, gap.end, crc)
            pieces.append(Piece(gap.start, parts))
        return pieces

    def arrived(self, count: int, now: float) -> None:
        """Bytes that were charged as `count` wait for the next commit cycle."""
        self.unanswered_bytes += count
        if self.received_s is None:
            self.received_s = now

    def cut(self) -> Cut:
        """Everything that has arrived, for a commit cycle."""
        cut = Cut(self, self.epoch, self.received.snapshot(), self.unanswered_bytes, self.received_s)
        self.unanswered_bytes = 0
        self.received_s = None
        return cut


def _slice(data: Sequence[Buffer], start: int, end: int) -> list[Buffer]:
    """The bytes [start, end) of pieces that follow each other, without copying."""
    parts: list[Buffer] = []
    position = 0
    for piece in data:
        low, high = max(start - position, 0), min(end - position, len(piece))
        if low < high:
            parts.append(piece if high - low == len(piece) else memoryview(piece)[low:high])
        position += len(piece)
    return parts
