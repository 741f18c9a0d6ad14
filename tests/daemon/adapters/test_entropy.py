"""The machine's randomness."""

from daemon.adapters.entropy import SystemEntropy


def test_bytes_are_as_many_as_asked_and_never_the_same() -> None:
    entropy = SystemEntropy()
    drawn = {entropy.bytes(16) for _ in range(100)}
    assert len(drawn) == 100
    assert {len(each) for each in drawn} == {16}
    assert entropy.bytes(0) == b""


def test_numbers_stay_within_their_bounds_and_differ() -> None:
    entropy = SystemEntropy()
    drawn = {entropy.uniform(-0.5, 2.0) for _ in range(100)}
    assert len(drawn) > 1
    assert all(-0.5 <= each <= 2.0 for each in drawn)
    assert entropy.uniform(3.0, 3.0) == 3.0
