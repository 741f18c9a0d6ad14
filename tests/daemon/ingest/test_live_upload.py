"""One upload: which bytes have arrived, which are durable, and which the next cycle takes."""

import pytest

from daemon.ingest.live_upload import Allowance, LiveUpload, Piece
from protocol.checksum import Buffer, crc32c
from protocol.ranges import DigestedRange, Span
from tests.support.catalog_samples import upload as record

CONTENT = bytes(range(100))


def held(*spans: tuple[int, int]) -> tuple[DigestedRange, ...]:
    """Ranges of CONTENT."""
    return tuple(DigestedRange(start, end, crc32c(CONTENT[start:end])) for start, end in spans)


def joined(pieces: list[Piece]) -> list[tuple[int, bytes]]:
    return [(piece.offset, b"".join(map(bytes, piece.data))) for piece in pieces]


def arrive(upload: LiveUpload, start: int, *data: Buffer, knows_crc: bool = False) -> list[Piece]:
    """Bytes from `start` on, of which those that are missing are taken in."""
    gaps = upload.received.missing(start, start + sum(map(len, data)))
    return upload.take_in(start, data, gaps, crc32c(b"".join(data)) if knows_crc else None)


@pytest.mark.parametrize(
    ("durable", "next_expected_byte", "beyond"),
    [
        (held(), 0, []),
        (held((0, 10)), 10, []),
        (held((5, 10)), 0, [Span(5, 10)]),
        (held((0, 3), (5, 10), (20, 21)), 3, [Span(5, 10), Span(20, 21)]),
    ],
)
def test_n_ends_the_first_bytes_and_the_other_ranges_are_beyond(
    durable: tuple[DigestedRange, ...], next_expected_byte: int, beyond: list[Span]
) -> None:
    upload = LiveUpload(record(ranges=durable))
    assert upload.next_expected_byte == next_expected_byte
    assert upload.beyond() == beyond


def test_an_upload_begins_with_what_the_catalog_knows() -> None:
    upload = LiveUpload(record(ranges=held((0, 10)), epoch=7, crc32c_expected=5, sha256_expected=b"s" * 32))
    assert (upload.id, upload.epoch, upload.size) == (1, 7, 100)
    assert upload.received.snapshot() == upload.durable == held((0, 10))
    assert (upload.crc32c_expected, upload.sha256_expected) == (5, b"s" * 32)
    assert not upload.is_over
    assert upload.listener is None


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 10, True), (0, 11, False), (12, 15, True), (9, 13, False), (10, 12, False), (14, 21, False)],
)
def test_a_range_is_durable_if_all_of_it_is(start: int, end: int, expected: bool) -> None:
    assert LiveUpload(record(ranges=held((0, 10), (12, 20)))).is_durable(start, end) is expected


@pytest.mark.parametrize("knows_crc", [False, True])
def test_only_missing_bytes_are_taken_in(knows_crc: bool) -> None:
    upload = LiveUpload(record(ranges=held((10, 20), (30, 40))))
    pieces = arrive(upload, 5, CONTENT[5:15], CONTENT[15:33], CONTENT[33:50], knows_crc=knows_crc)
    assert joined(pieces) == [(5, CONTENT[5:10]), (20, CONTENT[20:30]), (40, CONTENT[40:50])]
    assert upload.received.snapshot() == held((5, 50))
    assert upload.durable == held((10, 20), (30, 40))


def test_arriving_bytes_are_not_copied() -> None:
    upload = LiveUpload(record())
    memory = bytearray(CONTENT)
    whole, part = memoryview(memory)[:10], memoryview(memory)[10:30]
    arrive(upload, 25, memoryview(memory)[25:30])
    ((_, (first, second)),) = arrive(upload, 0, whole, part)
    assert first is whole
    memory[12] = 255
    assert bytes(second) == CONTENT[10:12] + b"\xff" + CONTENT[13:25]


@pytest.mark.parametrize("knows_crc", [False, True])
def test_a_range_that_grows_piece_by_piece_has_the_crc_of_all_of_it(knows_crc: bool) -> None:
    upload = LiveUpload(record())
    for start in (0, 60, 20, 40, 80):
        arrive(upload, start, CONTENT[start : start + 7], CONTENT[start + 7 : start + 20], knows_crc=knows_crc)
    assert upload.received.snapshot() == held((0, 100))
    assert upload.received.prefix_crc32c() == crc32c(CONTENT)
    assert upload.is_whole


def test_a_known_crc_is_not_computed_again() -> None:
    upload = LiveUpload(record())
    known = 7
    upload.take_in(0, [CONTENT[:10]], [Span(0, 10)], known)
    assert upload.received.snapshot() == (DigestedRange(0, 10, known),)


def test_an_upload_of_unknown_size_is_never_whole() -> None:
    upload = LiveUpload(record(size=None, ranges=held((0, 100))))
    assert not upload.is_whole
    upload.size = 100
    assert upload.is_whole
    upload.size = 101
    assert not upload.is_whole


def test_a_cut_has_the_bytes_since_the_last_cut_and_the_time_of_the_first() -> None:
    upload = LiveUpload(record(epoch=3))
    arrive(upload, 0, CONTENT[:10])
    upload.arrived(10, now=5.0)
    arrive(upload, 10, CONTENT[10:15])
    upload.arrived(5, now=6.0)
    cut = upload.cut()
    arrive(upload, 15, CONTENT[15:])
    assert (cut.upload, cut.epoch, cut.ranges) == (upload, 3, held((0, 15)))
    assert (cut.answered_bytes, cut.received_s) == (15, 5.0)
    upload.arrived(85, now=10.0)
    later = upload.cut()
    assert (later.ranges, later.answered_bytes, later.received_s) == (held((0, 100)), 85, 10.0)


def test_a_cut_without_new_bytes_has_no_time_of_receipt() -> None:
    cut = LiveUpload(record(ranges=held((0, 10)))).cut()
    assert (cut.ranges, cut.answered_bytes, cut.received_s) == (held((0, 10)), 0, None)


def test_a_takeover_keeps_the_bytes_and_forgets_what_the_earlier_stream_said() -> None:
    upload = LiveUpload(record(size=None, epoch=1))
    arrive(upload, 0, CONTENT)
    upload.arrived(100, now=1.0)
    upload.size, upload.is_finishing, upload.sha256 = 100, True, b"d" * 32
    upload.sha256_expected, upload.allowance = b"s" * 32, Allowance(7)
    upload.take_over(record(size=None, epoch=2, crc32c_expected=9))
    assert upload.received.snapshot() == held((0, 100))
    said: list[object] = [upload.size, upload.is_finishing, upload.sha256, upload.sha256_expected]
    assert said == [None, False, None, None]
    assert (upload.epoch, upload.crc32c_expected) == (2, 9)
    granted: object = upload.allowance
    assert granted is None, "what the earlier OPEN was granted is not the later one's"
    assert upload.cut().answered_bytes == 0, "the window of the earlier stream is its own"
