"""Every scene at its smallest: it runs, modest devices get ACKs, and the daemon stops in order.

Several scenes are played at once, so nothing here asserts a time; `make fair` does.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from benchmarks.devices import raise_file_limit
from benchmarks.fairness.play import play
from benchmarks.fairness.scene import Outcome
from benchmarks.fairness.scenes import SCENES

SECONDS = 0.3

SCALE = 0.05
"""Of devices and bytes: ten modest devices."""

AT_ONCE = 4
"""A scene spends most of its time waiting."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Outcome]]]:
    raise_file_limit()
    directory = tmp_path_factory.mktemp("fairness")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {scene.name: pool.submit(play, scene, directory, SECONDS, SCALE) for scene in SCENES}


@pytest.mark.parametrize("name", [scene.name for scene in SCENES])
def test_modest_devices_get_their_acks_beside_every_load(outcomes: Mapping[str, Future[Outcome]], name: str) -> None:
    outcome = outcomes[name].result()
    for measured in (outcome.alone, outcome.beside):
        assert measured.small.count > measured.small.unanswered
        assert measured.small.p50_ms > 0
    assert outcome.lasting_faults() == []


def test_every_scene_has_a_name_of_its_own() -> None:
    assert len({scene.name for scene in SCENES}) == len(SCENES)
