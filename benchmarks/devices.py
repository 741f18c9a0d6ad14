"""The fleet of devices: one C program that holds all connections, and is told by lines what they do next."""

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
"""Connections of uplinkd that may wait for their answer at a time: half of the listener's backlog."""


class Speech(enum.Enum):
    """What the devices speak."""

    UPLINKD = "uplinkd"
    UPLINKD_TLS = "tls"
    MQTT = "mqtt"


@dataclass(frozen=True, slots=True)
class Appended:
    """How late the acknowledgements came, from the sending of a chunk to its ACK."""

    chunks: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float


class Devices:
    """The program while it runs. Every method returns when it is done, and raises process.Failed when it is not."""

    def __init__(self, program: "subprocess.Popen[str]", log: Path, count: int) -> None:
        self.count = count
        self._program = program
        self._log = log

    def connect(self, preambles: Path) -> float:
        """All connect and open; seconds from the first connect to the last answer."""
        return self._told(f"connect {preambles}")["seconds"]

    def cut(self) -> None:
        """All connections are reset."""
        self._told("cut")

    def append(self, devices: int, chunks_each: int, chunk_bytes: int, interval_s: float = 1) -> Appended:
        """The first `devices` send a chunk each interval, spread evenly over it, until the last is acknowledged."""
        done = self._told(f"append {devices} {chunks_each} {chunk_bytes} {interval_s}")
        return Appended(int(done["chunks"]), done["seconds"], done["p50_ms"], done["p99_ms"], done["max_ms"])

    def _told(self, line: str) -> dict[str, float]:
        if self._program.stdin is None or self._program.stdout is None:
            raise ValueError("the program was not started with pipes")
        with contextlib.suppress(BrokenPipeError):
            self._program.stdin.write(line + "\n")
            self._program.stdin.flush()
        answer = self._program.stdout.readline()
        if not answer:
            raise process.Failed(f"the fleet ended at '{line}': {self._log.read_text(errors='replace')[-2000:]}")
        told: dict[str, float] = json.loads(answer)
        return told


@contextlib.contextmanager
def devices(
    port: int,
    count: int,
    log: Path,
    speech: Speech = Speech.UPLINKD,
    unanswered_max: int = UNANSWERED_MAX,
    prefix: Sequence[str] = (),
) -> Iterator[Devices]:
    """`count` devices of the server at `port`, none of them connected yet. `prefix` goes before the program."""
    binary = native.program("load/fleet.c", "ssl", "crypto")
    words = [*prefix, str(binary), str(port), str(count), str(unanswered_max), speech.value]
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
    """The file of what each device begins with."""
    path.write_bytes(b"".join(struct.pack(">I", len(each)) + each for each in preambles))
    return path


def raise_file_limit() -> None:
    """Let the servers that are started from here on have as many connections as the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
