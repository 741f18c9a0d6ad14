"""What follows the header section of a download: the file, one range of it, or several as multipart/byteranges."""

from dataclasses import dataclass

from control.byte_ranges import ByteRange

SMALL_BYTES = 256 * 1024
"""Up to this size a body in memory costs less than a stream."""

Piece = bytes | ByteRange
"""Literal bytes, or bytes of the file."""


class ContentTruncatedError(Exception):
    """The stored file holds less than the catalog says."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A body and what the header section says of it. `length` is in bytes."""

    status: int
    content_type: str
    content_range: str | None
    pieces: tuple[Piece, ...]
    length: int


def whole(size: int, media_type: str) -> Payload:
    """200 with all of the content, which may be empty."""
    return Payload(200, media_type, None, (ByteRange(0, size),) if size else (b"",), size)


def partial(spans: tuple[ByteRange, ...], size: int, media_type: str, boundary: str) -> Payload:
    """206 with one range as it is, or several as multipart/byteranges (RFC 9110, section 14.6).

    `boundary` must be a token of at most 70 characters that nobody could foresee and put into the content.
    """
    if len(spans) == 1:
        return Payload(206, media_type, spans[0].content_range(size), spans, spans[0].length)
    pieces: list[Piece] = []
    for span in spans:
        lead = "\r\n" if pieces else ""
        fields = f"Content-Type: {media_type}\r\nContent-Range: {span.content_range(size)}"
        pieces += [f"{lead}--{boundary}\r\n{fields}\r\n\r\n".encode(), span]
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    length = sum(piece.length if isinstance(piece, ByteRange) else len(piece) for piece in pieces)
    return Payload(206, f"multipart/byteranges; boundary={boundary}", None, tuple(pieces), length)


def check_length(read_bytes: int, span: ByteRange) -> None:
    """Raises ContentTruncatedError unless all bytes of `span` were read."""
    if read_bytes != span.length:
        raise ContentTruncatedError(f"read {read_bytes} of {span.length} bytes at {span.start}: run `uplinkd verify`")
