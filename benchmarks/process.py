"""Start a server to measure, wait until it listens, read its CPU time and memory, and stop it."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30
POLL_S = 0.02

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A program failed. The message names it and ends with its output."""


class Server:
    """A running program and its children."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    def cpu_s(self) -> float:
        """User and system time in seconds, of the program and its running children."""
        return sum(_ticks(pid) for pid in _with_children(self.process.pid)) / TICKS_PER_S

    def resident_bytes(self) -> int:
        return sum(_status_kib(pid, "VmRSS") for pid in _with_children(self.process.pid)) * 1024

    def forget_peak(self) -> None:
        """Reset `peak_resident_bytes`; see clear_refs in proc(5)."""
        for pid in _with_children(self.process.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_resident_bytes(self) -> int:
        """The peak of resident memory since the start or the last `forget_peak`."""
        return sum(_status_kib(pid, "VmHWM") for pid in _with_children(self.process.pid)) * 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run `command` during the block, its output in `log`. The block begins once loopback `port` accepts connections.

    Raises Failed when the program ends before that or takes longer than START_TIMEOUT_S.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        if port is not None:
            _wait_for(port, process, log)
        yield Server(process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # Kill its children too. They are in its process group, since it was started as a session leader.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None) -> str:
    """Run `command` to its end and return its output. Raises Failed unless it exits with 0 in time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        output = b"".join(each[-2000:] for each in (late.stdout, late.stderr) if each).decode(errors="replace")
        raise Failed(f"{command[0]} took longer than {timeout_s} s: {output}") from late
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} exited with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > until:
            output = log.read_text(errors="replace")[-2000:]
            raise Failed(f"{process.args!r} does not listen on port {port}: {output}")
        time.sleep(POLL_S)


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _with_children(int(child))


def _ticks(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # Fields 14 to 17 of proc(5): utime, stime, and those of children that have ended.
        return sum(int(field) for field in fields[11:15])
    return 0


def _status_kib(pid: int, name: str) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0
