"""A cleanup over a real catalog and real files, and its parts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.telemetry.metrics import Metrics
from daemon.upkeep.cleanup import Cleanup
from tests.support.cleanup_bench import (
    LiveUploads,
    cleanup_of,
)
from tests.support.fake_machine import NOW_MS, CapturedLog, FakeClock, FakeEntropy
from tests.support.populated_store import Keeping, keep


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keep(tmp_path) as opened:
        yield opened


@pytest.fixture
def uploads() -> LiveUploads:
    return LiveUploads()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def entropy() -> FakeEntropy:
    return FakeEntropy()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(NOW_MS)


@pytest.fixture
def log() -> CapturedLog:
    return CapturedLog()


@pytest.fixture
def cleanup(
    kept: Keeping, uploads: LiveUploads, clock: FakeClock, entropy: FakeEntropy, metrics: Metrics, log: CapturedLog
) -> Cleanup:
    return cleanup_of(kept, uploads, metrics, clock=clock, entropy=entropy, log=log)
