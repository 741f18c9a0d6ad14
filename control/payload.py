"""What follows the header section of a download: the file, one range of it, or several as multipart/byteranges."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from control.byte_ranges import ByteRange
from control.ports import Content

BLOCK_BYTES = 512 * 1024
"""One block is read while another is written: each download holds two of them."""

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

    `boundary` must be a token of at most 70 characters that the content cannot be made to hold.
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


async def read_ahead(content: Content, payload: Payload) -> AsyncGenerator[bytes, None]:
    """The body in blocks, the next one being read while the caller is busy with the last.

    No read is under way once the iterator is closed. Raises what `Content.read` raises, and ContentTruncatedError.
    """
    steps = _blocks(payload.pieces)
    ahead = asyncio.create_task(_load(content, next(steps)))
    try:
        for step in steps:
            # Waiting on the task itself would cancel the read with this download, and leave its thread at work.
            await asyncio.wait({ahead})
            block = ahead.result()
            ahead = asyncio.create_task(_load(content, step))
            yield block
        await asyncio.wait({ahead})
        yield ahead.result()
    finally:
        await asyncio.wait({ahead})
        if not ahead.cancelled():
            ahead.exception()


def checked(data: bytes, span: ByteRange) -> bytes:
    """`data` if it is all of `span`. Raises ContentTruncatedError."""
    if len(data) != span.length:
        raise ContentTruncatedError(f"read {len(data)} of {span.length} bytes at {span.start}: run `uplinkd verify`")
    return data


def _blocks(pieces: tuple[Piece, ...]) -> Iterator[Piece]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        for start in range(piece.start, piece.end, BLOCK_BYTES):
            yield ByteRange(start, min(start + BLOCK_BYTES, piece.end))


async def _load(content: Content, piece: Piece) -> bytes:
    if isinstance(piece, bytes):
        return piece
    return checked(await content.read(piece.start, piece.length), piece)
