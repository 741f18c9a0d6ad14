"""The problems that the daemon finds: a failing catalog, a full disk, a commit cycle that hangs."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import health as health_module
from daemon.core import system_machine
from daemon.health import STUCK_S, Health, Problem
from daemon.sections import StorageSettings
from daemon.settings import Settings
from tests.support.fake_machine import FakeClock
from tests.support.running_core import FAILURE, core_on, failing


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def health(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Health]:
    settings = Settings(data_dir=tmp_path / "data", storage=StorageSettings(disk_free_min_bytes=0))
    async with core_on(settings, replace(system_machine(), clock=clock)) as running:
        yield running.core.health


async def test_a_healthy_daemon_has_no_problems(health: Health) -> None:
    assert await health.problems() == []


async def test_a_failing_catalog_is_a_problem(health: Health) -> None:
    assert await replace(health, catalog=failing()).problems() == [Problem("catalog", FAILURE)]


async def test_a_catalog_that_does_not_answer_is_a_problem(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "ANSWER_S", 0.01)
    (problem,) = await replace(health, catalog=failing(hangs=True)).problems()
    assert problem.component == "catalog"
    assert problem.detail.startswith("no answer within 0.01 s: look at the disk of ")


async def test_too_little_free_space_is_a_problem(health: Health) -> None:
    health.admission.policy = replace(health.admission.policy, disk_free_min_bytes=2**62)
    (problem,) = await health.problems()
    assert problem.component == "disk"
    assert str(2**62) in problem.detail


async def test_a_stuck_commit_cycle_is_a_problem(health: Health, clock: FakeClock) -> None:
    assert health.commit_stuck_s() == 0
    health.committer.oldest_cycle_s = clock.monotonic_s()
    clock.pass_s(STUCK_S)
    assert health.commit_stuck_s() == 0
    clock.pass_s(1)
    await health.disk.measure()
    assert health.commit_stuck_s() == STUCK_S + 1
    assert await health.problems() == [Problem("committer", "a commit cycle has been under way for 31 s")]
