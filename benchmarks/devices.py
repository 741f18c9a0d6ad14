"""A fleet of devices: one C program that holds all connections and takes commands on standard input."""

import contextlib
import enum
import json
import resource
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import native, process

UNANSWERED_MAX = 512
"""Connections to uplinkd that may await an answer at the same time: half of the listener's backlog."""


class Dialect(enum.Enum):
    """The protocol that the devices speak."""

    UPLINKD = "uplinkd"
    UPLINKD_TLS = "tls"
    MQTT = "mqtt"


@dataclass(frozen=True, slots=True)
class Appended:
    """Latency from sending a chunk until its ACK."""

    chunks: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float


class Devices:
    """The running program. Every method waits until the devices are done, and raises process.Failed when one fails."""

    def __init__(self, program: "subprocess.Popen[str]", log: Path, count: int) -> None:
        self.count = count
        self._program = program
        self._log = log

    def connect(self, preambles: Path) -> float:
        """Connect all devices and open their uploads. Returns the seconds from the first connect to the last answer."""
        return self._command(f"connect {preambles}")["seconds"]

    def cut(self) -> None:
        """Reset all connections."""
        self._command("cut")

    def append(self, devices: int, chunks_each: int, chunk_bytes: int, interval_s: float = 1) -> Appended:
        """Let the first `devices` send one chunk per interval, evenly spread, and wait for the last ACK."""
        done = self._command(f"append {devices} {chunks_each} {chunk_bytes} {interval_s}")
        return Appended(int(done["chunks"]), done["seconds"], done["p50_ms"], done["p99_ms"], done["max_ms"])

    def _command(self, line: str) -> dict[str, float]:
        if self._program.stdin is None or self._program.stdout is None:
            raise ValueError("the program was not started with pipes")
        with contextlib.suppress(BrokenPipeError):
            self._program.stdin.write(line + "\n")
            self._program.stdin.flush()
        answer = self._program.stdout.readline()
        if not answer:
            raise process.Failed(f"the fleet ended at '{line}': {self._log.read_text(errors='replace')[-2000:]}")
        result: dict[str, float] = json.loads(answer)
        return result


@contextlib.contextmanager
def devices(
    port: int,
    count: int,
    log: Path,
    dialect: Dialect = Dialect.UPLINKD,
    unanswered_max: int = UNANSWERED_MAX,
    prefix: Sequence[str] = (),
) -> Iterator[Devices]:
    """`count` devices for the server at `port`, not connected yet. `prefix` goes in front of the command."""
    binary = native.program("load/fleet.c", "ssl", "crypto")
    words = [*prefix, str(binary), str(port), str(count), str(unanswered_max), dialect.value]
    with log.open("ab") as output:
        program = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True, start_new_session=True
        )
    with program:
        try:
            yield Devices(program, log, count)
        finally:
            program.terminate()


def save(preambles: Iterable[bytes], path: Path) -> Path:
    """Write the file with the first bytes that each device sends."""
    path.write_bytes(b"".join(struct.pack(">I", len(each)) + each for each in preambles))
    return path


def raise_file_limit() -> None:
    """Raise the limit on open files to its maximum, for this process and the servers it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
