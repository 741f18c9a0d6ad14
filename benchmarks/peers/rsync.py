"""The rsync daemon: plain TCP, whole files written in place and synced."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import process
from benchmarks.payload import Payload
from benchmarks.peers.receiver import PUT_TIMEOUT_S, Receiver

PROMISE = "--whole-file --inplace --fsync, then fsync of the directory; its own checksum over each file"

CONFIGURATION = """
address = 127.0.0.1
port = {port}
use chroot = no
{user}
reverse lookup = no
lock file = {directory}/rsyncd.lock
[files]
path = {directory}/files
read only = no
"""

ROOT = "uid = root\ngid = root"
"""Otherwise a daemon started by root becomes nobody, which may have no access to the directory."""


@dataclass(frozen=True, slots=True)
class Rsync(Receiver):
    """A running rsync daemon."""

    def put_many(self, payload: Payload, names: Sequence[str]) -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: self._send(payload, name), names))
        self.sync_directory()
        return time.perf_counter() - began

    def _send(self, payload: Payload, name: str) -> None:
        target = f"rsync://127.0.0.1:{self.port}/files/{name}"
        process.run(["rsync", "--whole-file", "--inplace", "--fsync", str(payload.path), target], PUT_TIMEOUT_S)


def missing() -> str | None:
    return None if shutil.which("rsync") else "rsync"


@contextlib.contextmanager
def serving(directory: Path, tls: bool = False) -> Iterator[Rsync]:
    """The daemon with its files in `directory`. Raises ValueError for TLS, which rsync does not have."""
    if tls:
        raise ValueError("the rsync daemon speaks no TLS: leave it out of that case")
    root, port = directory / "files", process.free_port()
    root.mkdir()
    configuration = directory / "rsyncd.conf"
    user = ROOT if os.geteuid() == 0 else ""
    configuration.write_text(CONFIGURATION.format(directory=directory, port=port, user=user))
    version = process.run(["rsync", "--version"], timeout_s=10).split()[2]
    command = ["rsync", "--daemon", "--no-detach", f"--config={configuration}", f"--log-file={directory}/rsyncd.log"]
    with process.started(command, directory / "rsync.log", port) as server:
        yield Rsync(f"{version}: {PROMISE}", server, port, root)
