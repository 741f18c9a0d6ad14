"""Uploads on a bench, their cycles and digests running."""

from collections.abc import AsyncIterator

import pytest

from tests.support.upload_bench import Bench, running


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running(Bench()) as made:
        yield made


@pytest.fixture
async def held(bench: Bench) -> Bench:
    """Writes and syncs wait for the test."""
    bench.storage.holds_writes = bench.storage.holds_syncs = True
    return bench
