"""Checksums against published values, over every kind of memory."""

import numpy as np
import pytest

from protocol.checksum import (
    COMBINED_BYTES_MIN,
    Buffer,
    crc32c,
    crc32c_combine,
    crc32c_rows,
    is_quick_to_combine,
    sum8,
)

DIGITS = b"123456789"
DIGITS_CRC = 0xE3069283  # RFC 3720 §B.4 and every catalogue of CRCs


@pytest.mark.parametrize(
    "data",
    [DIGITS, bytearray(DIGITS), memoryview(DIGITS), memoryview(bytearray(b"<" + DIGITS + b">"))[1:-1]],
    ids=["bytes", "bytearray", "read-only view", "writable view"],
)
def test_any_kind_of_buffer_is_accepted(data: Buffer) -> None:
    assert sum8(data) == sum(DIGITS) % 256
    assert crc32c(data) == DIGITS_CRC


def test_each_row_gets_its_own_crc() -> None:
    rows = np.frombuffer(DIGITS + b"987654321", np.uint8).reshape(2, len(DIGITS))
    assert crc32c_rows(rows).tolist() == [DIGITS_CRC, crc32c(b"987654321")]


def test_checksums_of_no_bytes() -> None:
    assert (sum8(b""), crc32c(b""), crc32c(b"", 5)) == (0, 0, 5)


def test_the_sum_wraps_at_256() -> None:
    assert sum8(b"\xff" * 257) == 255


@pytest.mark.parametrize("cut", range(len(DIGITS) + 1))
def test_a_crc_continues_and_joins(cut: int) -> None:
    first, second = DIGITS[:cut], DIGITS[cut:]
    assert crc32c(second, crc32c(first)) == DIGITS_CRC
    assert crc32c_combine(crc32c(first), crc32c(second), len(second)) == DIGITS_CRC


def test_crcs_of_whole_files_can_be_joined() -> None:
    once = crc32c_combine(DIGITS_CRC, 0, 2**62)
    assert crc32c_combine(once, 0, 2**62 - 1) == crc32c_combine(DIGITS_CRC, 0, 2**63 - 1)
    assert once != DIGITS_CRC


@pytest.mark.parametrize("length", [1, 255, 2**15, 100_003, 2**20 - 1])
def test_a_joined_crc_equals_that_of_the_whole(length: int) -> None:
    first, second = bytes(range(256)) * 2, (bytes(range(251)) * 4200)[:length]
    assert crc32c_combine(crc32c(first), crc32c(second), length) == crc32c(first + second)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (COMBINED_BYTES_MIN, True),
        (COMBINED_BYTES_MIN - 1, False),
        (COMBINED_BYTES_MIN + 1, False),
        (256 * 1024, True),
        (3 * 2**20, True),
        (2**20 - 1, True),
        (60_000, False),
    ],
)
def test_joining_is_cheaper_for_long_lengths_with_few_bits_set(length: int, expected: bool) -> None:
    assert is_quick_to_combine(length) is expected
