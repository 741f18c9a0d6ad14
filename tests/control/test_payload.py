"""What follows the header section, and the reading ahead."""

from contextlib import aclosing
from email import message_from_bytes

import pytest

from control.byte_ranges import ByteRange
from control.payload import BLOCK_BYTES, ContentTruncatedError, partial, read_ahead, whole
from tests.control.fakes import FakeContents

DATA = bytes(range(256)) * 8192


@pytest.fixture
def contents() -> FakeContents:
    return FakeContents({1: DATA})


async def test_blocks_join_to_the_whole(contents: FakeContents) -> None:
    content = await contents.open(1)
    async with aclosing(read_ahead(content, whole(len(DATA), "a/b"))) as blocks:
        got = [block async for block in blocks]
    assert b"".join(got) == DATA
    assert max(map(len, got)) == BLOCK_BYTES


async def test_only_one_block_is_read_ahead_of_the_caller(contents: FakeContents) -> None:
    content = await contents.open(1)
    async with aclosing(read_ahead(content, whole(len(DATA), "a/b"))) as blocks:
        await anext(blocks)
        assert len(contents.reads) <= 2
    # Closing the content asserts that no read is under way.
    await content.close()


async def test_a_failed_read_reaches_the_caller_once(contents: FakeContents) -> None:
    contents.fail_at = BLOCK_BYTES
    content = await contents.open(1)
    with pytest.raises(OSError, match="Input/output"):
        async with aclosing(read_ahead(content, whole(len(DATA), "a/b"))) as blocks:
            async for _ in blocks:
                pass
    await content.close()


async def test_a_file_shorter_than_the_catalog_says_is_a_fault(contents: FakeContents) -> None:
    content = await contents.open(1)
    with pytest.raises(ContentTruncatedError, match="uplinkd verify"):
        async with aclosing(read_ahead(content, whole(len(DATA) + 1, "a/b"))) as blocks:
            async for _ in blocks:
                pass


async def test_several_ranges_are_a_well_formed_multipart(contents: FakeContents) -> None:
    spans = (ByteRange(1000, 1010), ByteRange(0, 3))
    payload = partial(spans, len(DATA), "text/plain", "b0undary")
    content = await contents.open(1)
    async with aclosing(read_ahead(content, payload)) as blocks:
        body = b"".join([block async for block in blocks])
    assert len(body) == payload.length
    message = message_from_bytes(f"Content-Type: {payload.content_type}\r\n\r\n".encode() + body)
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part["Content-Range"] for part in parts] == [f"bytes 1000-1009/{len(DATA)}", f"bytes 0-2/{len(DATA)}"]
    assert [part.get_payload(decode=True) for part in parts] == [DATA[1000:1010], DATA[:3]]


def test_one_range_is_never_a_multipart() -> None:
    payload = partial((ByteRange(1, 3),), 10, "text/plain", "b0undary")
    assert (payload.content_type, payload.content_range, payload.length) == ("text/plain", "bytes 1-2/10", 2)
