"""Play a scene: modest devices alone, then beside the load, then the daemon stops while both go on."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import certificate, uplinkd
from benchmarks.fairness.crowd import working
from benchmarks.fairness.modest import Fleet, modest
from benchmarks.fairness.scene import DRAIN_TIMEOUT_S, MIB, Outcome, Scene
from benchmarks.fairness.stage import Stage
from benchmarks.process import Server

ALONE_S_MAX = 2.0
"""Long enough for thousands of chunks."""

SAMPLE_S = 0.5

GROWTH_S_MIN = 20
"""The least time over which memory that grows can be told from memory that fills once."""

STOP_TIMEOUT_S = 25
"""When to give up waiting for the daemon's end."""


def play(scene: Scene, directory: Path, seconds: float, scale: float = 1) -> Outcome:
    """Play one scene for `seconds` beside the load. Raises process.Failed when a program of the benchmark fails."""
    with contextlib.ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory, prefix=f"{scene.name}-")))
        settings = {"DRAIN__TIMEOUT_S": str(DRAIN_TIMEOUT_S), **scene.settings, **scene.prepare(own)}
        if scene.tls:
            pair = certificate.make(own)
            settings |= {"LISTEN__TLS_CERTIFICATE": str(pair.path), "LISTEN__TLS_KEY": str(pair.key_path)}
        prefix = stack.enter_context(_prefix(scene, own))
        daemon = stack.enter_context(uplinkd.serving(own, settings, prefix))
        stage = Stage(daemon, own, scale)
        devices = stack.enter_context(modest(stage, _scaled(scene.fleet, scale), tls=scene.tls))
        alone = devices.measure(min(seconds, ALONE_S_MAX))
        daemon.server.forget_peak()
        start_mib = daemon.server.resident_bytes() / MIB
        with scene.load(stage):
            with _resident(daemon.server) as samples_mib:
                beside = devices.measure(seconds)
            tries = replace(stage.tries)
            end_mib, peak_mib = daemon.server.resident_bytes() / MIB, daemon.server.peak_resident_bytes() / MIB
            stop_s, status = _stop(daemon.server)
        tracebacks = (own / "uplinkd.log").read_text(errors="replace").count("Traceback")
    return Outcome(
        scene=scene,
        alone=alone,
        beside=beside,
        start_mib=start_mib,
        peak_mib=peak_mib,
        end_mib=end_mib,
        growth_mib=_growth(samples_mib),
        stop_s=stop_s,
        status=status,
        tracebacks=tracebacks,
        tries=tries.made,
        succeeded=tries.succeeded,
        notes=tuple(stage.notes),
    )


@contextlib.contextmanager
def _resident(server: Server) -> Iterator[list[float]]:
    """Resident memory in MiB during the block, each SAMPLE_S."""
    samples: list[float] = []

    def sample(over: threading.Event) -> None:
        while not over.wait(SAMPLE_S):
            samples.append(server.resident_bytes() / MIB)

    with working(sample):
        yield samples


def _growth(samples_mib: Sequence[float]) -> float:
    """How much more memory the last third took at its peak than the third before; 0 where it is too short to say."""
    third = len(samples_mib) // 3
    if third * SAMPLE_S < GROWTH_S_MIN:
        return 0
    return max(samples_mib[-third:]) - max(samples_mib[-2 * third : -third])


def _scaled(fleet: Fleet, scale: float) -> Fleet:
    small, large, whole = (max(2, round(count * scale)) for count in (fleet.small, fleet.large, fleet.whole))
    return replace(fleet, small=small, large=large, whole=whole)


@contextlib.contextmanager
def _prefix(scene: Scene, directory: Path) -> Iterator[tuple[str, ...]]:
    """What to put before the daemon's command, so that it has few descriptors, or a log that nobody reads."""
    prefix: tuple[str, ...] = ()
    if scene.files_max is not None:
        prefix = ("sh", "-c", f'ulimit -n {scene.files_max} && exec "$@"', "sh")
    if not scene.log_stalls:
        yield prefix
        return
    pipe = directory / "log-pipe"
    os.mkfifo(pipe)
    # Open for reading and writing, so that the daemon can open it, and never gets an error for want of a reader.
    held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield ("sh", "-c", 'exec "$@" 2>"$0"', str(pipe), *prefix)
    finally:
        os.close(held)


def _stop(server: Server) -> tuple[float, int]:
    """Send SIGTERM. Returns the seconds until the end, and the exit status; what does not end is killed."""
    began_s = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    try:
        status = server.process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.process.kill()
        status = server.process.wait()
    return time.monotonic() - began_s, status
