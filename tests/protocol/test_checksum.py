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
def test_any_memory_will_do(data: Buffer) -> None:
    assert sum8(data) == sum(DIGITS) % 256
    assert crc32c(data) == DIGITS_CRC


def test_rows_have_a_crc_each() -> None:
    rows = np.frombuffer(DIGITS + b"987654321", np.uint8).reshape(2, len(DIGITS))
    assert crc32c_rows(rows).tolist() == [DIGITS_CRC, crc32c(b"987654321")]


def test_nothing() -> None:
    assert (sum8(b""), crc32c(b""), crc32c(b"", 5)) == (0, 0, 5)


def test_the_sum_wraps_at_256() -> None:
    assert sum8(b"\xff" * 257) == 255


@pytest.mark.parametrize("cut", range(len(DIGITS) + 1))
def test_a_crc_continues_and_joins(cut: int) -> None:
    first, second = DIGITS[:cut], DIGITS[cut:]
    assert crc32c(second, crc32c(first)) == DIGITS_CRC
    assert crc32c_combine(crc32c(first), crc32c(second), len(second)) == DIGITS_CRC


def test_joining_takes_lengths_of_whole_files() -> None:
    once = crc32c_combine(DIGITS_CRC, 0, 2**62)
    assert crc32c_combine(once, 0, 2**62 - 1) == crc32c_combine(DIGITS_CRC, 0, 2**63 - 1)
    assert once != DIGITS_CRC


@pytest.mark.parametrize("length", [1, 255, 2**15, 100_003, 2**20 - 1])
def test_joining_is_as_if_all_had_been_read(length: int) -> None:
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
def test_joining_pays_for_long_lengths_of_few_bits(length: int, expected: bool) -> None:
    assert is_quick_to_combine(length) is expected
