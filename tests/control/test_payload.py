"""What follows the header section."""

from email import message_from_bytes

import pytest

from control.byte_ranges import ByteRange
from control.payload import ContentTruncatedError, Payload, check_length, partial, whole

DATA = bytes(range(256)) * 8192


def body_of(payload: Payload) -> bytes:
    return b"".join(
        DATA[piece.start : piece.end] if isinstance(piece, ByteRange) else piece for piece in payload.pieces
    )


@pytest.mark.parametrize("size", [0, 1, len(DATA)])
def test_the_whole_is_one_piece(size: int) -> None:
    payload = whole(size, "a/b")
    assert (payload.status, payload.content_range, payload.length, len(payload.pieces)) == (200, None, size, 1)
    assert body_of(payload) == DATA[:size]


def test_a_file_shorter_than_the_catalog_says_is_a_fault() -> None:
    check_length(3, ByteRange(5, 8))
    with pytest.raises(ContentTruncatedError, match="read 2 of 3 bytes at 5: run `uplinkd verify`"):
        check_length(2, ByteRange(5, 8))


def test_several_ranges_are_a_well_formed_multipart() -> None:
    spans = (ByteRange(1000, 1010), ByteRange(0, 3))
    payload = partial(spans, len(DATA), "text/plain", "b0undary")
    body = body_of(payload)
    assert len(body) == payload.length
    message = message_from_bytes(f"Content-Type: {payload.content_type}\r\n\r\n".encode() + body)
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part["Content-Range"] for part in parts] == [f"bytes 1000-1009/{len(DATA)}", f"bytes 0-2/{len(DATA)}"]
    assert [part.get_payload(decode=True) for part in parts] == [DATA[1000:1010], DATA[:3]]


def test_one_range_is_never_a_multipart() -> None:
    payload = partial((ByteRange(1, 3),), 10, "text/plain", "b0undary")
    assert (payload.content_type, payload.content_range, payload.length) == ("text/plain", "bytes 1-2/10", 2)
