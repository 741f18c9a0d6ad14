"""An outcome of a scene that breaks no bound."""

import contextlib
from dataclasses import replace

from benchmarks.fairness.modest import Latency, Measured
from benchmarks.fairness.scene import Outcome, Scene

QUICK = Latency(count=1000, unanswered=0, p50_ms=4, p99_ms=12, max_ms=20)
SLOW = replace(QUICK, p99_ms=300)

MEASURED = Measured(
    small=QUICK,
    large=QUICK,
    whole=QUICK,
    devices=210,
    connected=210,
    tries=100,
    welcomed=100,
    cut=0,
    refused=0,
    last_code=0,
    cpu_s=0.1,
)

SCENE = Scene("quiet", "nothing happens", lambda _: contextlib.nullcontext())

GOOD = Outcome(
    scene=SCENE,
    alone=MEASURED,
    beside=MEASURED,
    start_mib=80,
    peak_mib=200,
    end_mib=90,
    growth_mib=0,
    stop_s=0.3,
    status=0,
    tracebacks=0,
    tries=10,
    succeeded=10,
    notes=(),
)
