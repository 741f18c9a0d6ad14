"""A throw-away machine with a real systemd, in which the project is installed as by an operator."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.deadlines import PROCESS_S
from tests.support.installs import PROJECT, WHEELS, offline

INSIDE = Path("/mnt/project")
"""The project as the machine sees it."""

SCRIPT = Path(__file__).parent / "nested.sh"

SYSTEM_PYTHON = Path("/usr/bin/python3")
"""The service cannot see /home and /root, where other Pythons live."""

UNABLE = 77
"""nested.sh's exit status if the kernel or the rights are insufficient."""

CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
"""Where nested.sh makes a control group named after its process id."""

POLL_S = 0.1

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""Only those of the tests' variables that a login shell would have."""

UMASK = 0o022
"""The umask of a login shell, whatever the tests' own: the service's user must be able to read what root installs."""


class Unable(Exception):
    """Such a machine cannot run here; the text says why."""


class Machine:
    """A running machine. `run` runs a command in it as root."""

    def __init__(self, init_pid: int) -> None:
        self._enter = ("nsenter", "--all", "--target", str(init_pid), "--")

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run and return the result. Tries again if systemd was too busy to answer."""
        until = time.monotonic() + PROCESS_S
        while True:
            done = subprocess.run(
                [*self._enter, *command],
                env=ENVIRONMENT,
                umask=UMASK,
                capture_output=True,
                text=True,
                check=False,
                timeout=PROCESS_S,
            )
            if "Transport endpoint is not connected" not in done.stderr or time.monotonic() > until:
                return done

    def run(self, *command: str) -> str:
        """Run, and return standard output. Raises AssertionError with all output unless it succeeds."""
        done = self.attempt(*command)
        assert done.returncode == 0, f"{command} gave {done.returncode}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def write(self, path: str, data: str | bytes) -> None:
        """Write `data` to the file `path`. An existing file keeps its owner and mode."""
        subprocess.run(
            [*self._enter, "tee", path],
            input=data.encode() if isinstance(data, str) else data,
            env=ENVIRONMENT,
            umask=UMASK,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=PROCESS_S,
        )

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str = "uplinkd.service") -> str:
        return self.attempt("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds. Raises AssertionError with the journal if it does not."""
        until = time.monotonic() + PROCESS_S
        while not condition():
            assert time.monotonic() < until, f"waited in vain until {what}\n{self.journal()}"
            time.sleep(POLL_S)

    def make(self, target: str) -> str:
        """Run `make install` or `make rollback` like an operator, without a network, and return the output."""
        settings = [f"{name}={value}" for name, value in offline(INSIDE / WHEELS.relative_to(PROJECT)).items()]
        python = f"PYTHON={SYSTEM_PYTHON}"
        return self.run("env", *settings, "make", "--silent", f"--directory={INSIDE}", target, python)


@contextlib.contextmanager
def booted(state: Path) -> Iterator[Machine]:
    """Start a machine that keeps its own files in `state`, and power it off afterwards. Raises Unable."""
    _check_host()
    outside = subprocess.Popen(
        [str(SCRIPT), str(state), str(PROJECT)],
        env=ENVIRONMENT,
        umask=UMASK,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        machine = Machine(_init_pid(outside))
        _wait_until_up(outside, machine)
        try:
            yield machine
        finally:
            machine.attempt("systemctl", "start", "--no-block", "poweroff.target")
            outside.wait(PROCESS_S)
    finally:
        outside.kill()
        outside.communicate()
        for hierarchy in CGROUPS:
            _remove_groups(hierarchy / f"uplinkd-nested-{outside.pid}")


def _remove_groups(top: Path) -> None:
    """Remove control groups. Their files cannot be removed, but go with the directory."""
    for directory, _, _ in os.walk(top, topdown=False):
        Path(directory).rmdir()


def _check_host() -> None:
    if os.geteuid() != 0:
        raise Unable("needs root")
    for tool in ("systemctl", "unshare", "nsenter", "setpriv", "ip", "make"):
        if shutil.which(tool, path=ENVIRONMENT["PATH"]) is None:
            raise Unable(f"needs {tool}")
    version = "import sys; print(*sys.version_info[:2])"
    mine = f"{sys.version_info[0]} {sys.version_info[1]}"
    if not SYSTEM_PYTHON.exists() or subprocess.check_output([SYSTEM_PYTHON, "-c", version], text=True).strip() != mine:
        raise Unable(f"needs {SYSTEM_PYTHON} of the version that runs the tests")
    if not (WHEELS / ".complete").exists():
        raise Unable("needs what `make venv` fetches")


def _init_pid(outside: "subprocess.Popen[bytes]") -> int:
    until = time.monotonic() + PROCESS_S
    children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
    while outside.poll() is None:
        assert time.monotonic() < until, "nested.sh did not start its machine"
        for child in children.read_text().split():
            # It may end between the two checks. Then the loop's condition ends the loop.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        time.sleep(POLL_S)
    _, errors = outside.communicate()
    if outside.returncode == UNABLE:
        raise Unable(f"needs the rights and the kernel for a nested systemd: {errors.decode().strip()}")
    raise AssertionError(f"nested.sh ended with {outside.returncode}: {errors.decode()}")


def _wait_until_up(outside: "subprocess.Popen[bytes]", machine: Machine) -> None:
    until = time.monotonic() + PROCESS_S
    while True:
        state = machine.attempt("systemctl", "is-system-running").stdout.strip()
        # Degraded: a unit of the host failed, which does not matter here.
        if state in {"running", "degraded"}:
            return
        assert outside.poll() is None, "the machine went down while it started"
        if time.monotonic() >= until:
            jobs = machine.attempt("systemctl", "list-jobs", "--no-pager").stdout
            raise AssertionError(f"the machine did not come up, its state is {state!r}; what it waits for:\n{jobs}")
        time.sleep(POLL_S)
