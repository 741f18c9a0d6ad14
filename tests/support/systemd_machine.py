"""A throw-away machine with a real systemd, and the project installed in it as an operator would."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.deadlines import PROCESS_S

PROJECT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "nested.sh"

SYSTEM_PYTHON = Path("/usr/bin/python3")
"""The service cannot see /home and /root, where other Pythons live."""

UNABLE = 77
"""nested.sh's exit status where the kernel or the rights do not do."""

CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
"""Where nested.sh makes a control group named after its process id."""

POLL_S = 0.1

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""Of the tests' own, only what a login shell would have."""

UMASK = 0o022
"""A login shell's, whatever that of the tests is: the service's user must be able to read what root installs."""


class Unable(Exception):
    """There can be no such machine here; the text says why."""


class Machine:
    """A running machine. `run` runs a command in it as root."""

    def __init__(self, init_pid: int) -> None:
        self._enter = ("nsenter", "--all", "--target", str(init_pid), "--")

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run and return what came of it, asking again when systemd was too busy to answer at all."""
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
        """Run, and return standard output. Raises AssertionError with all that was said unless it succeeds."""
        done = self.attempt(*command)
        assert done.returncode == 0, f"{command} gave {done.returncode}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def write(self, path: str, data: str | bytes) -> None:
        """Put `data` into the file `path`, which keeps its owner and mode if it is there."""
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
        """Raises AssertionError, with the journal, when `condition` does not come to hold."""
        until = time.monotonic() + PROCESS_S
        while not condition():
            assert time.monotonic() < until, f"waited in vain until {what}\n{self.journal()}"
            time.sleep(POLL_S)

    def install(self, wheel: str) -> None:
        """What `make install` does, but for fetching the dependencies: those of the tests are lent."""
        site = f"python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        lent = "/opt/uplinkd/lent"
        venv = "/opt/uplinkd/.venv"
        self.run(str(SYSTEM_PYTHON), "-m", "venv", "--without-pip", venv)
        # A copy, since the service's user may not be able to read the checkout.
        self.run("mkdir", lent)
        self.run("sh", "-c", f"tar -C /mnt/project/.venv/lib/{site} --mode=a+rX -c . | tar -C {lent} -x")
        self.run("sh", "-c", f"echo {lent} > {venv}/lib/{site}/lent.pth")
        pip = ("/mnt/project/.venv/bin/python", "-m", "pip", "--python", f"{venv}/bin/python")
        self.run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
        self.run("make", "--silent", "--directory=/mnt/project", "install-files")
        self.run("systemd-sysusers", "uplinkd.conf")
        self.run("systemd-tmpfiles", "--create", "uplinkd.conf")
        self.run("systemctl", "daemon-reload")


def wheel(directory: Path) -> Path:
    """Build the project's wheel, from a copy, since a build leaves files beside its sources."""
    sources = directory / "sources"
    tracked = ("protocol", "daemon", "control", "device", "pyproject.toml", "README.md", "LICENSE")
    for name in tracked:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, sources / name)
    command = ("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run(
        [sys.executable, "-m", *command, f"--wheel-dir={directory}", str(sources)],
        env=ENVIRONMENT,
        check=True,
        timeout=PROCESS_S,
    )
    [built] = directory.glob("*.whl")
    return built


@contextlib.contextmanager
def booted(state: Path) -> Iterator[Machine]:
    """Start a machine, whose own files live in the directory `state`, and power it off afterwards. Raises Unable."""
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
    """Control groups have files that cannot be removed, and go with their directory."""
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
    if not (PROJECT / ".venv" / "bin" / "python").exists():
        raise Unable("needs the environment that `make venv` makes")


def _init_pid(outside: "subprocess.Popen[bytes]") -> int:
    until = time.monotonic() + PROCESS_S
    children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
    while outside.poll() is None:
        assert time.monotonic() < until, "nested.sh did not start its machine"
        for child in children.read_text().split():
            # It may end between the two looks; the loop's condition then tells.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        time.sleep(POLL_S)
    _, said = outside.communicate()
    if outside.returncode == UNABLE:
        raise Unable(f"needs the rights and the kernel for a nested systemd: {said.decode().strip()}")
    raise AssertionError(f"nested.sh ended with {outside.returncode}: {said.decode()}")


def _wait_until_up(outside: "subprocess.Popen[bytes]", machine: Machine) -> None:
    until = time.monotonic() + PROCESS_S
    while True:
        state = machine.attempt("systemctl", "is-system-running").stdout.strip()
        # Degraded: a unit of the host's that has no business here has failed.
        if state in {"running", "degraded"}:
            return
        assert outside.poll() is None, "the machine went down while it started"
        if time.monotonic() >= until:
            jobs = machine.attempt("systemctl", "list-jobs", "--no-pager").stdout
            raise AssertionError(f"the machine did not come up, its state is {state!r}; what it waits for:\n{jobs}")
        time.sleep(POLL_S)
