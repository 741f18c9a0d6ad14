"""The two chunk checksums, and CRC32C joined without reading the bytes again. PROTOCOL.md §14."""

from functools import lru_cache

import google_crc32c
import numpy as np
import numpy.typing as npt

Buffer = bytes | bytearray | memoryview
Checksums = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]

_POLYNOMIAL_REFLECTED = 0x82F63B78  # Castagnoli, RFC 3720 §12.1


def sum8(data: Buffer) -> int:
    """The sum of all bytes modulo 256."""
    return int(np.add.reduce(np.frombuffer(data, dtype=np.uint8), dtype=np.uint8))


def crc32c(data: Buffer, crc: int = 0) -> int:
    """CRC32C (RFC 3720) of `data`, continuing from `crc` of what came before."""
    # The C function refuses memoryviews of writable memory; an array over the same bytes costs no copy.
    return int(google_crc32c.extend(crc, np.frombuffer(data, dtype=np.uint8)))


def crc32c_rows(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """CRC32C of each row of bytes that lie one behind the other."""
    return np.fromiter(map(google_crc32c.value, rows), np.uint32, len(rows))


def crc32c_combine(first: int, second: int, second_bytes: int) -> int:
    """CRC32C of A followed by B, from those of A and B and the length of B."""
    for bit in range(second_bytes.bit_length()):
        if second_bytes >> bit & 1:
            first = _apply(_zero_bytes_operator(bit), first)
    return first ^ second


def _apply(operator: tuple[int, ...], vector: int) -> int:
    result = 0
    for row in operator:
        if not vector:
            break
        if vector & 1:
            result ^= row
        vector >>= 1
    return result


@lru_cache(maxsize=64)  # one entry for each bit of a 63-bit length
def _zero_bytes_operator(power: int) -> tuple[int, ...]:
    """The matrix over GF(2) that appends 2**power zero bytes to a CRC."""
    if power == 0:
        operator = (_POLYNOMIAL_REFLECTED, *(1 << bit for bit in range(31)))  # one zero bit
        for _ in range(3):
            operator = tuple(_apply(operator, row) for row in operator)
        return operator
    half = _zero_bytes_operator(power - 1)
    return tuple(_apply(half, row) for row in half)
