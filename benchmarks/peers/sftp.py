"""OpenSSH: sftp to our own sshd on loopback, always encrypted."""

import contextlib
import getpass
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import process
from benchmarks.payload import Payload
from benchmarks.peers import programs
from benchmarks.peers.receiver import PUT_TIMEOUT_S, Receiver

PROMISE = "put -f: fsync of the file, then of the directory; default ciphers; no checksum kept"

CONFIGURATION = """
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
# The parent directories may belong to another user; the key files are made for this run alone.
StrictModes no
UsePAM no
UseDNS no
PidFile none
# By default sshd starts to refuse connections when ten are not yet authenticated.
MaxStartups 1000
Subsystem sftp internal-sftp
"""

PRIVILEGE_SEPARATION = Path("/run/sshd")
"""The chroot of sshd's unprivileged process when root starts it. Debian creates it when the service starts."""


@dataclass(frozen=True, slots=True)
class Sftp(Receiver):
    """A running sshd, and the client's command line."""

    client: tuple[str, ...]

    def put_many(self, payload: Payload, names: Sequence[str]) -> float:
        """The clock starts when all sessions are established."""
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(self._session()) for _ in names]
            began = time.perf_counter()
            for session, name in zip(sessions, names, strict=True):
                session.send(f"put -f {payload.path} {self.root / name}\nbye\n")
            for session in sessions:
                session.finish()
            self.sync_directory()
            return time.perf_counter() - began

    @contextlib.contextmanager
    def _session(self) -> "Iterator[_Session]":
        with subprocess.Popen(
            self.client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as program:
            session = _Session(program)
            try:
                session.send("pwd\n")
                session.wait_for("Remote working directory")
                yield session
            finally:
                program.kill()


@dataclass(frozen=True, slots=True)
class _Session:
    """An sftp client that reads its commands from a pipe."""

    program: "subprocess.Popen[str]"

    def send(self, commands: str) -> None:
        assert self.program.stdin is not None  # noqa: S101 - it is a pipe
        self.program.stdin.write(commands)
        self.program.stdin.flush()

    def wait_for(self, text: str) -> None:
        assert self.program.stdout is not None  # noqa: S101 - it is a pipe
        output = []
        for line in self.program.stdout:
            output.append(line)
            if text in line:
                return
        raise process.Failed(f"sftp ended before it printed {text!r}: {''.join(output)[-2000:]}")

    def finish(self) -> None:
        try:
            output, _ = self.program.communicate(timeout=PUT_TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            raise process.Failed(f"sftp took longer than {PUT_TIMEOUT_S} s") from late
        if self.program.returncode != 0:
            raise process.Failed(f"sftp exited with {self.program.returncode}: {output[-2000:]}")


def missing() -> str | None:
    absent = [program for program in ("sshd", "ssh-keygen", "sftp") if programs.find(program) is None]
    return f"sftp (no {', '.join(absent)})" if absent else None


@contextlib.contextmanager
def serving(directory: Path, tls: bool = False) -> Iterator[Sftp]:  # noqa: ARG001 - SSH encrypts either way
    """sshd with its keys and files in `directory`, which lets in only the user who runs this."""
    root, port = directory / "files", process.free_port()
    root.mkdir()
    for key in ("host_key", "user_key"):
        process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key)], timeout_s=30)
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    configuration = directory / "sshd_config"
    configuration.write_text(CONFIGURATION.format(directory=directory, port=port))
    command = [programs.find("sshd") or "sshd", "-D", "-e", "-f", str(configuration)]
    with process.started(command, directory / "sshd.log", port) as server:
        yield Sftp(PROMISE, server, port, root, _client(directory, port))


def _client(directory: Path, port: int) -> tuple[str, ...]:
    host_key = (directory / "host_key.pub").read_text()
    known = directory / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {host_key}")
    options = [f"IdentityFile={directory}/user_key", "IdentitiesOnly=yes", f"UserKnownHostsFile={known}"]
    options.append(f"ConnectTimeout={process.START_TIMEOUT_S}")
    arguments = [word for option in options for word in ("-o", option)]
    # Without -F, sftp would read the user's own configuration.
    return ("sftp", "-F", "none", "-b", "-", "-P", str(port), *arguments, f"{getpass.getuser()}@127.0.0.1")
