"""`python -m benchmarks.fairness`: play every scene beside modest devices, and check what these notice."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.devices import raise_file_limit
from benchmarks.fairness.play import play
from benchmarks.fairness.scene import Outcome, Scene
from benchmarks.fairness.scenes import SCENES
from benchmarks.process import Failed

BUILD = Path(__file__).parent.parent.parent / "build" / "fairness"
"""Next to the sources, because /tmp may be in memory."""

SECONDS = 5.0
"""Of each scene beside its load. With start, comparison and stop a scene takes about twelve."""

LONG_SECONDS = 300.0

HEAD = (
    "Latency in ms, memory in MiB.\n"
    f"{'scene':15} {'alone p50':>9} {'p99':>7} {'beside p50':>10} {'p99':>8} {'32K p99':>8} {'file p99':>8} "
    f"{'served':>6} {'start':>6} {'peak':>6} {'end':>6} {'stop':>6}"
)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    parser.add_argument("--scene", action="append", choices=[scene.name for scene in SCENES], help="only this one")
    parser.add_argument("--seconds", type=float, help=f"of each scene beside its load, {SECONDS:g} by default")
    parser.add_argument("--long", action="store_true", help="the first scene alone, for five minutes")
    parser.add_argument("--verbose", action="store_true", help="print what the loads did")
    chosen = parser.parse_args(arguments)
    names = chosen.scene or [SCENES[0].name if chosen.long else scene.name for scene in SCENES]
    seconds = chosen.seconds or (LONG_SECONDS if chosen.long else SECONDS)
    raise_file_limit()
    BUILD.mkdir(parents=True, exist_ok=True)
    print(HEAD, flush=True)
    outcomes, faults = [], []
    with tempfile.TemporaryDirectory(dir=BUILD) as directory:
        for scene in [scene for scene in SCENES if scene.name in names]:
            outcome, found = _played(scene, Path(directory), seconds, verbose=chosen.verbose)
            outcomes += [outcome] if outcome is not None else []
            faults += [f"{scene.name}: {fault}" for fault in found]
    if faults:
        print(f"fair: FAILED {'; '.join(faults)}")
        return 1
    print(
        f"fair: ok scenes={len(outcomes)} worst_p99_ms={max(each.p99_ms for each in outcomes):.0f} "
        f"rss_over_mib={max(each.over_mib for each in outcomes):.0f} "
        f"refused_legitimate={sum(each.refused for each in outcomes)}"
    )
    return 0


def _played(scene: Scene, directory: Path, seconds: float, *, verbose: bool) -> tuple[Outcome | None, list[str]]:
    """Play a scene, print its line, and return what it broke."""
    began_s = time.monotonic()
    try:
        outcome = play(scene, directory, seconds)
    except (Failed, OSError) as error:
        print(f"{scene.name:15} failed: {error}", flush=True)
        return None, [str(error).splitlines()[0]]
    faults = outcome.faults()
    print(_line(outcome), flush=True)
    for line in [*(f"FAILED {fault}" for fault in faults), *(outcome.notes if verbose else ())]:
        print(f"  {line}", flush=True)
    if verbose:
        print(f"  {outcome.beside}\n  took {time.monotonic() - began_s:.1f} s", flush=True)
    return outcome, faults


def _line(outcome: Outcome) -> str:
    alone, beside = outcome.alone, outcome.beside
    return (
        f"{outcome.scene.name:15} {alone.small.p50_ms:9.1f} {alone.small.p99_ms:7.1f} {beside.small.p50_ms:10.1f} "
        f"{beside.small.p99_ms:8.1f} {beside.large.p99_ms:8.1f} {beside.whole.p99_ms:8.1f} {outcome.share:6.0%} "
        f"{outcome.start_mib:6.0f} {outcome.peak_mib:6.0f} {outcome.end_mib:6.0f} {outcome.stop_s:5.1f}s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
