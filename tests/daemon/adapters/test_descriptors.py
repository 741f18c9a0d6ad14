"""The limit of file descriptors, on the real process."""

import resource
from collections.abc import Iterator

import pytest

from daemon.adapters.descriptors import limit, raise_limit


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """The process's limits, which are put back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield soft, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_becomes_the_hard_one(limits: tuple[int, int]) -> None:
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    assert limit() == hard
    assert raise_limit() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert raise_limit() == hard
