"""Events and failures that tests of the server's end expect, and the data of a large chunk."""

from protocol import frames
from protocol.checksum import crc32c
from protocol.constants import ChecksumKind
from protocol.errors import ErrorCode
from protocol.events import ChunksReceived, ConnectionFailed, ServerEvent, StreamFailed
from protocol.state import ConnectionState
from tests.support.server_rig import ServerRig

LARGE = bytes(range(256)) * 256
"""Data of a chunk that needs a lease and gets a CRC32C of its own."""


def received(
    stream: int, start: int, data: bytes, count: int = 1, kind: ChecksumKind = ChecksumKind.SUM8
) -> ServerEvent:
    known = kind is ChecksumKind.CRC32C and len(data) >= len(LARGE)
    return ChunksReceived(stream, start, start + len(data), (data,), count, kind, None, crc32c(data) if known else None)


def failure(events: list[ServerEvent]) -> ErrorCode:
    """The code of the connection's failure."""
    assert isinstance(events[-1], ConnectionFailed)
    assert events[-1].detail
    return events[-1].code


def stream_failure(rig: ServerRig, data: bytes, number: int = 1) -> tuple[ErrorCode, int]:
    """Feed input that must end the stream but not the connection. Returns the code and the resume point."""
    (event,) = rig.feed(data)
    assert isinstance(event, StreamFailed)
    assert event.stream == number
    ((stream, error),) = rig.sent()
    assert isinstance(error, frames.Error)
    assert (stream, error.code, error.action) == (number, event.code, event.code.action)
    assert number not in rig.connection.streams
    assert rig.connection.state is ConnectionState.OPEN
    return event.code, error.next_expected_byte
