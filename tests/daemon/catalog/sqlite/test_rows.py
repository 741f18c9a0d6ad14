"""Uploads survive being rows."""

import struct

import pytest

from daemon.catalog.records import Metadata, State
from daemon.catalog.sqlite.rows import CODES, COLUMNS, pack_ranges, to_row, to_upload, unpack_ranges
from protocol.ranges import DigestedRange
from tests.support.catalog_samples import upload

LAST = (1 << 63) - 1


def test_the_codes_are_those_of_the_migrations() -> None:
    assert {state.value: code for state, code in CODES.items()} == {
        "receiving": 0,
        "partial": 1,
        "complete": 2,
        "rejected": 3,
        "aborted": 4,
        "deleted": 5,
        "expired": 6,
    }


def test_ranges_are_packed_big_endian() -> None:
    packed = pack_ranges((DigestedRange(0, 256, 0xDEADBEEF),))
    assert packed.hex() == "00000000000000000000000000000100deadbeef"


@pytest.mark.parametrize(
    "ranges",
    [(), (DigestedRange(0, LAST, 0),), (DigestedRange(0, 1, 2), DigestedRange(3, LAST, 0xFFFFFFFF))],
)
def test_ranges_come_back(ranges: tuple[DigestedRange, ...]) -> None:
    assert unpack_ranges(pack_ranges(ranges)) == ranges


def test_half_a_range_is_not_read() -> None:
    with pytest.raises(struct.error):
        unpack_ranges(b"\0" * 19)


def test_an_upload_comes_back() -> None:
    full = upload(
        State.COMPLETE,
        id=LAST,
        tag=b"\0tag",
        ranges=(DigestedRange(0, 100, 1),),
        crc32c=1,
        sha256=b"s" * 32,
        crc32c_expected=1,
        sha256_expected=b"s" * 32,
        metadata=Metadata("text/plain", "x", "ä.txt"),
        completed_ms=2_000,
    )
    for each in (full, upload(size=None)):
        assert len(to_row(each)) == len(COLUMNS.split(","))
        assert to_upload(to_row(each)) == each
