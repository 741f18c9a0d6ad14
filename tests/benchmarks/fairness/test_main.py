"""What `make fair` prints, and its exit status."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fairness import __main__ as program
from benchmarks.fairness.scene import Outcome, Scene
from benchmarks.process import Failed
from tests.support.fairness_outcomes import GOOD


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, float]]:
    """Scenes that were played, each with its seconds. All end well, but for `digests`, which does not stop in time."""
    names: list[tuple[str, float]] = []

    def play(scene: Scene, directory: Path, seconds: float) -> Outcome:
        names.append((scene.name, seconds))
        if scene.name == "deaf":
            raise Failed("the daemon does not listen")
        return replace(GOOD, scene=scene, stop_s=9 if scene.name == "digests" else 1)

    monkeypatch.setattr(program, "play", play)
    monkeypatch.setattr(program, "BUILD", tmp_path)
    return names


def last_line(output: str) -> str:
    return output.splitlines()[-1]


def test_scenes_that_break_nothing(played: list[tuple[str, float]], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--scene", "tiny", "--scene", "silent"]) == 0
    assert [name for name, _ in played] == ["tiny", "silent"]
    assert last_line(capsys.readouterr().out) == "fair: ok scenes=2 worst_p99_ms=12 rss_over_mib=0 refused_legitimate=0"


def test_a_scene_that_breaks_a_bound(played: list[tuple[str, float]], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == 1
    assert last_line(capsys.readouterr().out) == (
        "fair: FAILED digests: stopping took 9.0 s, not 5; deaf: the daemon does not listen"
    )


def test_the_long_form_plays_the_first_scene(played: list[tuple[str, float]]) -> None:
    assert program.main(["--long"]) == 0
    assert played == [("one-byte", 300)]
