"""The results of one upload on their way to the device: ACK, NACK, VERIFYING, and how it ends. PROTOCOL.md §3.6, §7."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.catalog.records import Upload
from daemon.ingest.live_upload import LiveUpload
from daemon.telemetry.metrics import Metrics
from protocol import frames
from protocol.errors import ErrorCode
from protocol.ranges import Span
from protocol.server import ServerConnection


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Why a device that has proven who it is gets no place."""

    code: ErrorCode
    detail: str


class Wire(Protocol):
    """The transport below a session."""

    def admit(self, tenant: str, device: str) -> TurnedAway | None:
        """Take a place for the device, or say why there is none."""
        ...

    def changed(self) -> None:
        """There is something to send, or input that waited may go on."""
        ...


class StreamHost(Protocol):
    """The session that a stream belongs to."""

    @property
    def connection(self) -> ServerConnection: ...
    @property
    def wire(self) -> Wire: ...
    @property
    def metrics(self) -> Metrics: ...

    def ended(self, number: int) -> None:
        """The stream has no upload any more."""
        ...

    def fail_stream(self, number: int, code: ErrorCode, detail: str) -> None:
        """End one stream with an ERROR."""
        ...


class DeviceStream:
    """One stream of a connection, as the listener of its upload."""

    __slots__ = ("_number", "_session", "upload")

    def __init__(self, session: StreamHost, number: int) -> None:
        self._session = session
        self._number = number
        self.upload: LiveUpload | None = None

    def acknowledged(self, next_expected_byte: int, beyond: Sequence[Span], answered_bytes: int) -> None:
        self._session.metrics.acks += 1
        self._session.connection.acknowledge(self._number, next_expected_byte, beyond, answered_bytes)
        self._session.wire.changed()

    def refused(self, refused: Span, code: ErrorCode, answered_bytes: int) -> None:
        self._session.metrics.nacks[code] += 1
        self._session.connection.refuse_range(self._number, refused, code, answered_bytes)
        self._session.wire.changed()

    def verifying(self, wait_ms: int) -> None:
        self._session.connection.send(self._number, frames.Verifying(wait_ms))
        self._session.wire.changed()

    def finished(self, upload: Upload) -> None:
        self._session.ended(self._number)
        frame = frames.Finished(upload.id, upload.size or 0, upload.crc32c or 0, upload.sha256)
        self._session.connection.finished(self._number, frame)
        self._session.wire.changed()

    def aborted(self, upload_id: int) -> None:
        self._session.ended(self._number)
        self._session.connection.aborted(self._number, upload_id)
        self._session.wire.changed()

    def failed(self, code: ErrorCode, detail: str) -> None:
        self._session.ended(self._number)
        self._session.fail_stream(self._number, code, detail)
        self._session.wire.changed()
