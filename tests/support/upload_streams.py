"""The device's side of an upload: the memory with its bytes, and the stream that gets the results."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from daemon.catalog.records import Upload
from protocol.checksum import Buffer
from protocol.constants import CHUNK_OVERHEAD_BYTES
from protocol.errors import ErrorCode
from protocol.ranges import Span


class CountedLease:
    """A chunk's memory, which reads as zeros after its return."""

    def __init__(self, data: bytes) -> None:
        self._memory = bytearray(data)
        self.holders = 1

    @property
    def view(self) -> memoryview:
        return memoryview(self._memory)

    def retain(self) -> None:
        assert self.holders > 0, "memory is retained after it was returned"
        self.holders += 1

    def release(self) -> None:
        assert self.holders > 0, "memory is returned twice"
        self.holders -= 1
        if not self.holders:
            self._memory[:] = bytes(len(self._memory))


@dataclass(frozen=True, slots=True)
class Ack:
    """The arguments of a call of `acknowledged`."""

    next_expected_byte: int
    beyond: tuple[Span, ...]
    answered_bytes: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The arguments of a call of `refused`."""

    refused: Span
    code: ErrorCode
    answered_bytes: int


@dataclass(eq=False)
class Stream:
    """An upload's listener that records its calls."""

    acks: list[Ack] = field(default_factory=list)
    nacks: list[Nack] = field(default_factory=list)
    waits_ms: list[int] = field(default_factory=list)
    completed: Upload | None = None
    aborted_id: int | None = None
    error: ErrorCode | None = None
    detail: str = ""
    heard: list[str] = field(default_factory=list)
    """The names of all calls, in order."""

    @property
    def is_over(self) -> bool:
        return self.heard[-1:] in (["finished"], ["aborted"], ["failed"])

    @property
    def acknowledged_byte(self) -> int:
        """The last N that was acknowledged."""
        return self.acks[-1].next_expected_byte if self.acks else 0

    @property
    def answered_bytes(self) -> int:
        return sum(ack.answered_bytes for ack in self.acks) + sum(nack.answered_bytes for nack in self.nacks)

    def acknowledged(self, next_expected_byte: int, beyond: Sequence[Span], answered_bytes: int) -> None:
        self._hear("acknowledged")
        self.acks.append(Ack(next_expected_byte, tuple(beyond), answered_bytes))

    def refused(self, refused: Span, code: ErrorCode, answered_bytes: int) -> None:
        self._hear("refused")
        self.nacks.append(Nack(refused, code, answered_bytes))

    def verifying(self, wait_ms: int) -> None:
        self._hear("verifying")
        self.waits_ms.append(wait_ms)

    def finished(self, upload: Upload) -> None:
        self._hear("finished")
        self.completed = upload

    def aborted(self, upload_id: int) -> None:
        self._hear("aborted")
        self.aborted_id = upload_id

    def failed(self, code: ErrorCode, detail: str) -> None:
        self._hear("failed")
        self.error, self.detail = code, detail

    def _hear(self, what: str) -> None:
        assert not self.is_over, f"{what} on a stream that is over"
        self.heard.append(what)


def charged_bytes(*data_bytes: int) -> int:
    """What chunks of these sizes cost in the window."""
    return sum(data_bytes) + len(data_bytes) * CHUNK_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Run:
    """A run of received bytes, in pieces."""

    start: int
    data: tuple[Buffer, ...]
    crc32c: int | None = None

    @property
    def end(self) -> int:
        return self.start + sum(map(len, self.data))

    @property
    def charged_bytes(self) -> int:
        """As one chunk."""
        return charged_bytes(self.end - self.start)
