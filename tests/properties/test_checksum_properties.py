"""Checksums against the simplest implementation, for any bytes and any cut."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.checksum import crc32c, crc32c_combine, sum8


def plain_crc32c(data: bytes) -> int:
    """Bit by bit, from the definition in RFC 3720 §12.1."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@given(st.binary(max_size=300))
def test_checksums_match_their_definition(data: bytes) -> None:
    assert sum8(data) == sum(data) % 256
    assert crc32c(data) == plain_crc32c(data)


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_the_crc_of_all_parts_is_that_of_the_whole(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    running = joined = 0
    for part in parts:
        running = crc32c(part, running)
        joined = crc32c_combine(joined, crc32c(part), len(part))
    assert running == joined == plain_crc32c(whole)


@given(st.binary(min_size=1, max_size=100), st.integers(0, 2**62), st.integers(0, 2**62))
def test_joining_a_length_equals_joining_its_two_parts(data: bytes, one: int, other: int) -> None:
    crc = crc32c(data)
    assert crc32c_combine(crc32c_combine(crc, 0, one), 0, other) == crc32c_combine(crc, 0, one + other)
