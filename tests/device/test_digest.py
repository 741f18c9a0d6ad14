"""The digests of a source that is read in pieces."""

import hashlib

import pytest

from device.digest import Digest, RunningDigest
from protocol.checksum import crc32c
from tests.support.content import DATA, DIGEST


@pytest.mark.parametrize("piece_bytes", [1000, 64 * 1024, len(DATA)])
def test_pieces_in_order_give_the_digest_of_the_whole(piece_bytes: int) -> None:
    running = RunningDigest(sha256=True)
    for start in range(0, len(DATA), piece_bytes):
        running.update(start, DATA[start : start + piece_bytes])
    assert running.end_byte == len(DATA)
    assert running.value == Digest(crc32c(DATA), DIGEST)


def test_bytes_read_again_count_once_and_bytes_after_a_gap_not_yet() -> None:
    running = RunningDigest(sha256=True)
    running.update(0, DATA[:1000])
    running.update(500, DATA[500:900])
    running.update(1001, DATA[1001:2000])
    assert running.end_byte == 1000
    running.update(500, DATA[500:2000])
    assert running.value == Digest(crc32c(DATA[:2000]), hashlib.sha256(DATA[:2000]).digest())


def test_no_bytes_have_a_digest_too() -> None:
    assert RunningDigest(sha256=True).value == Digest(0, hashlib.sha256(b"").digest())


def test_sha256_is_left_out_unless_wanted() -> None:
    running = RunningDigest(sha256=False)
    running.update(0, DATA)
    assert running.value == Digest(crc32c(DATA), None)
