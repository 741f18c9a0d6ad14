"""Hostile and odd devices on the wire."""

import contextlib
import functools
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks import greedy, process, wire
from benchmarks.fairness.crowd import Crowd, Manner, working
from benchmarks.fairness.stage import HOSTILE_ADDRESS, Stage
from protocol import codec, frames
from protocol.constants import SIZE_UNKNOWN, FrameType

Load = Callable[[Stage], AbstractContextManager[None]]
"""Plays hostile clients during the block, which begins once they are at work."""

MIB = 1 << 20

READY_TIMEOUT_S = 30
SETTLED_TIMEOUT_S = 5

BEGUN_BYTES = 10_000
"""More than a connection may keep outside of the receive pool."""

CHUNKS = {MIB: 135, MIB // 4: 5, MIB // 16: 10, MIB // 64: 15}
"""More of the largest than the receive pool holds. The others then take what is too little for one of these."""

ARRIVED_S = 0.3
"""Until the daemon has read what a crowd sent first."""

HOSTILE = "hostile"
"""The one device that the hostile connections share."""


@dataclass(frozen=True, slots=True)
class Greedy:
    """Sends all that the window allows; see load/greedy.c. `devices` share the connections."""

    connections: int
    streams: int
    chunk_bytes: int
    kind: str
    again: bool = False
    devices: int = 1
    bytes_max: int = 8 << 30
    """So that a fast disk is not filled."""

    @contextlib.contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        hellos = stage.records("hellos", [hello(stage, f"{HOSTILE}-{number}") for number in range(self.devices)])
        connections = stage.some(self.connections)
        chunks = stage.some(self.bytes_max) // (connections * self.chunk_bytes)
        greed = greedy.Greed(connections, self.streams, self.chunk_bytes, chunks, self.kind, self.again)
        words = greedy.command(greed, stage.daemon.port, hellos, HOSTILE_ADDRESS)
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
            if program.stdout is None:
                raise ValueError("the program was not started with a pipe")
            try:
                ready = program.stdout.readline()
                if not ready:
                    raise process.Failed(f"greedy ended with {program.wait(READY_TIMEOUT_S)}")
                yield
            finally:
                program.send_signal(signal.SIGTERM)
                output = program.stdout.readlines()
        stage.notes.append(f"greedy: {ready.strip()} {greedy.parse(output)}")


@dataclass(frozen=True, slots=True)
class Dripping:
    """Connections that each send the first BEGUN_BYTES of a chunk, and then `bytes_per_s`.

    CHUNKS says how many there are of each size. Those of `devices` use them in turn.
    """

    devices: int
    bytes_per_s: int

    @contextlib.contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        hellos = [hello(stage, f"{HOSTILE}-{number}") for number in range(self.devices)]
        with contextlib.ExitStack() as stack:
            for size, count in CHUNKS.items():
                begun = codec.encode_chunk_header(FrameType.CHUNK, 1, 0, bytes(size)) + bytes(BEGUN_BYTES)
                first = functools.partial(self._first, hellos, begun)
                manner = Manner(stage.daemon.port, stage.some(count), first, drip=bytes(self.bytes_per_s))
                stack.enter_context(crowded(stage, manner))
                time.sleep(ARRIVED_S)
            yield

    def _first(self, hellos: Sequence[bytes], begun: bytes, serial: int) -> bytes:
        name = f"slow-{begun[:25].hex()}-{serial}"
        return hellos[serial % len(hellos)] + wire.opening(name, SIZE_UNKNOWN) + begun


def silent(connections: int, lives_s: float = float("inf")) -> Load:
    """Strangers that connect and say nothing. Each comes back half a second after it was cut."""
    return lambda stage: crowded(stage, Manner(stage.daemon.port, stage.some(connections), lives_s=lives_s))


def holding(connections: int, devices: int = 1, lives_s: float = float("inf")) -> Load:
    """Devices that are admitted, and then say nothing."""

    def load(stage: Stage) -> AbstractContextManager[None]:
        hellos = [hello(stage, f"{HOSTILE}-{number}") for number in range(stage.some(devices))]
        return crowded(
            stage,
            Manner(
                stage.daemon.port,
                stage.some(connections),
                lambda serial: hellos[serial % len(hellos)],
                lives_s=lives_s,
            ),
        )

    return load


def deaf(connections: int) -> Load:
    """Devices that send PING without end, and read no answer."""

    def load(stage: Stage) -> AbstractContextManager[None]:
        first, pings = hello(stage, HOSTILE), codec.encode(frames.Ping(7)) * 4096
        count = stage.some(connections)
        return crowded(
            stage,
            Manner(stage.daemon.port, count, lambda _: first, drip=pings, drip_s=0.01, read_bytes=0),
        )

    return load


def stuttering(connections: int) -> Load:
    """A device whose every frame stops after its first bytes: one byte of a chunk's header a second."""

    def load(stage: Stage) -> AbstractContextManager[None]:
        greeting = hello(stage, HOSTILE)
        prefix = codec.PREFIX.pack(FrameType.CHUNK, 0, 1, 17 + MIB)
        count = stage.some(connections)

        def first(serial: int) -> bytes:
            return greeting + wire.opening(f"stutter-{serial}", SIZE_UNKNOWN) + prefix

        return crowded(stage, Manner(stage.daemon.port, count, first, drip=b"\0"))

    return load


def pausing(seconds: float) -> Load:
    """The daemon itself stands still, as on a host that is suspended. Then two seconds to catch up."""

    @contextlib.contextmanager
    def load(stage: Stage) -> Iterator[None]:
        daemon = stage.daemon.server.process
        daemon.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds * max(stage.scale, 0.1))
        finally:
            daemon.send_signal(signal.SIGCONT)
        time.sleep(2)
        yield

    return load


@contextlib.contextmanager
def crowded(stage: Stage, manner: Manner) -> Iterator[None]:
    """Play a crowd during the block, which begins once all its connections are made."""
    crowd = Crowd(manner)
    with working(crowd.run):
        until = time.monotonic() + SETTLED_TIMEOUT_S
        while crowd.made < manner.count and time.monotonic() < until:
            time.sleep(0.02)
        yield
        stage.notes.append(f"crowd: {crowd.open} open, {crowd.made} made, {crowd.ended} ended")


def hello(stage: Stage, device: str) -> bytes:
    """HELLO of a hostile device."""
    return wire.hello(stage.daemon.token(device))
