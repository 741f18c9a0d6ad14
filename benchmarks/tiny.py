"""Tiny chunks: how many of 64 bytes per second become durable when each device sends to four uploads in turn.

Part of the benchmark `frames`. No limit and no peer takes part: neither has several uploads on one connection.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import greedy, uplinkd, wire
from benchmarks.greedy import Greed
from benchmarks.lab import Lab
from benchmarks.results import Case, compare
from benchmarks.rounds import Contestant, Sample, play
from benchmarks.uplinkd import Uplinkd

UNIT = "frames/s"

CHUNK_BYTES = 64

STREAMS = 4

CONNECTIONS = {"tiny-one": 1, "tiny-hundred": 100}


def cases(lab: Lab, daemon: Uplinkd) -> Iterator[Case]:
    """One device and a hundred. Raises process.Failed when a device loses its connection."""
    for name, connections in CONNECTIONS.items():
        greed = Greed(connections, STREAMS, CHUNK_BYTES, lab.pick(256 << 10, 128 << 10, 1 << 10) // connections)
        contestant = Contestant("uplinkd", uplinkd.PROMISE, _measured(daemon, greed, lab.directory / name))
        yield compare(name, UNIT, play(lab, name, UNIT, [contestant]))


def _measured(daemon: Uplinkd, greed: Greed, hellos: Path) -> Callable[[], Sample]:
    """Each round goes on where the uploads of the former ended."""
    tokens = [wire.hello(daemon.token(f"{hellos.name}-{number}")) for number in range(greed.connections)]
    hellos.write_bytes(b"".join(len(each).to_bytes(4, "big") + each for each in tokens))

    def measure() -> Sample:
        before_s = daemon.server.cpu_s()
        sent = greedy.send(greed, daemon.port, hellos)
        cpu_us = (daemon.server.cpu_s() - before_s) / sent.chunks * 1e6
        return Sample(sent.chunks / sent.seconds, {"cpu_us_per_frame": cpu_us, "acks": sent.acks})

    return measure
