"""A server under measurement: started, waited for, its CPU time and memory read, ended by its process id."""

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
    """A program did not do what it was asked; the text names it and ends with what it said."""


class Server:
    """A running program and its children."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    def cpu_s(self) -> float:
        """Seconds of processor time, user and system, that it and its children alive have used so far."""
        return sum(_ticks(pid) for pid in _family(self.process.pid)) / TICKS_PER_S

    def resident_bytes(self) -> int:
        return sum(_status_kib(pid, "VmRSS") for pid in _family(self.process.pid)) * 1024

    def forget_peak(self) -> None:
        """Let `peak_resident_bytes` begin anew; see proc(5), clear_refs."""
        for pid in _family(self.process.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_resident_bytes(self) -> int:
        """The most that was resident, since the start or `forget_peak`."""
        return sum(_status_kib(pid, "VmHWM") for pid in _family(self.process.pid)) * 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run `command`, its output in `log`, until the block ends; entered when `port` of loopback accepts connections."""
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
            # Its children too, whom nobody else would end: it leads a session and so a process group of its own.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None) -> str:
    """Run to its end; what it printed. Raises Failed unless it exits with 0 in time."""
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
        said = b"".join(output[-2000:] for output in (late.stdout, late.stderr) if output).decode(errors="replace")
        raise Failed(f"{command[0]} took longer than {timeout_s} s: {said}") from late
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} gave {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(errors="replace")[-2000:]
            raise Failed(f"{process.args!r} does not listen on port {port}: {said}")
        time.sleep(POLL_S)


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))


def _ticks(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # utime, stime, and those of the children that have ended: proc(5), fields 14 to 17.
        return sum(int(field) for field in fields[11:15])
    return 0


def _status_kib(pid: int, name: str) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0
