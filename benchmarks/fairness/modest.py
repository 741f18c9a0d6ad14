"""The devices that must not notice: small chunks, chunks that need the receive pool, and whole files."""

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import native, process, wire
from benchmarks.fairness.stage import Stage
from protocol import codec, frames
from protocol.constants import SIZE_UNKNOWN, CredentialKind, Disposition, FrameType

WHOLE_BYTES = 1000

NUMBER = "0000000000"
"""Where modest.c numbers the names of whole files."""

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Fleet:
    """How many devices of each kind; see load/modest.c."""

    small: int = 200
    large: int = 10
    whole: int = 20


@dataclass(frozen=True, slots=True)
class Latency:
    """From making a chunk to its ACK, or from connecting to FINISHED.

    What got no answer counts with the time that it waited.
    """

    count: int
    unanswered: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What the modest devices met in one period.

    `cut` counts connections lost since the period before, `refused` REFUSED. Of `tries` connections for a whole file
    `welcomed` were accepted.
    """

    small: Latency
    large: Latency
    whole: Latency
    devices: int
    connected: int
    tries: int
    welcomed: int
    cut: int
    refused: int
    last_code: int
    cpu_s: float


class Modest:
    """The running program."""

    def __init__(self, program: "subprocess.Popen[str]") -> None:
        self._program = program

    def wait_until_ready(self) -> None:
        """Wait until all devices are connected, or the time for that is over."""
        self._answer()

    def measure(self, seconds: float) -> Measured:
        """Measure for `seconds`. Raises process.Failed when the program fails."""
        if self._program.stdin is None:
            raise ValueError("the program was not started with pipes")
        with contextlib.suppress(BrokenPipeError):
            self._program.stdin.write(f"measure {seconds}\n")
            self._program.stdin.flush()
        found = json.loads(self._answer())
        small, large, whole = (Latency(**found.pop(name)) for name in ("small", "large", "whole"))
        return Measured(small=small, large=large, whole=whole, **found)

    def _answer(self) -> str:
        if self._program.stdout is None:
            raise ValueError("the program was not started with pipes")
        line = self._program.stdout.readline()
        if not line:
            raise process.Failed(f"the modest devices ended with {self._program.wait(TIMEOUT_S)}")
        return line


@contextlib.contextmanager
def modest(stage: Stage, fleet: Fleet, *, tls: bool) -> Iterator[Modest]:
    """The devices during the block, connected when it begins."""
    paths = {
        "small": stage.records("small", [_preamble(stage, f"small-{number}") for number in range(fleet.small)]),
        "large": stage.records("large", [_preamble(stage, f"large-{number}") for number in range(fleet.large)]),
        "whole": stage.records("whole", [_file(stage, f"whole-{number}") for number in range(fleet.whole)]),
    }
    words = [str(native.program("load/modest.c", "ssl", "crypto")), "--port", str(stage.daemon.port)]
    words += [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    program = subprocess.Popen(
        [*words, *(["--tls"] if tls else [])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with program:
        try:
            running = Modest(program)
            running.wait_until_ready()
            yield running
        finally:
            program.terminate()


def _preamble(stage: Stage, device: str) -> bytes:
    """HELLO and OPEN of a device that appends to one file."""
    return wire.hello(stage.daemon.token(device)) + wire.opening(f"{device}.log", SIZE_UNKNOWN)


def _file(stage: Stage, device: str) -> bytes:
    """A whole upload. Its digest comes with FINISH, so that the daemon has to read the file back."""
    content = bytes(WHOLE_BYTES)
    hello = frames.Hello(CredentialKind.TOKEN, wire.FEATURES, wire.FRAME_BYTES_MAX, token=stage.daemon.token(device))
    opening = frames.Open(Disposition.RESUME_OR_CREATE, len(content), f"file-{NUMBER}")
    chunk = codec.encode_chunk_header(FrameType.CHUNK, 1, 0, content) + content
    return codec.encode(hello) + codec.encode(opening, 1) + chunk + wire.finish(len(content), 1, _digest(content))


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
