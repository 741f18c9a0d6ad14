"""Devices that stream one file each, played by one C program, to the daemon or to the limit."""

import json
import shutil
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import certificate, native, process, wire
from benchmarks.payload import Payload
from benchmarks.uplinkd import Uplinkd
from protocol.constants import CHUNK_OVERHEAD_BYTES, ChecksumKind

WINDOW_BYTES = 16 << 20
"""The daemon's default. The limit has no handshake that could announce it."""

CYCLE_BYTES = 16 << 20
CYCLE_MS = 5
"""The limit syncs as often as the daemon does by default."""

TIMEOUT_S = 300

LIBRARIES = ("ssl", "crypto")


@dataclass(frozen=True, slots=True)
class Load:
    """What each device sends: `bytes_each` bytes of the payload, which is repeated if it is shorter.

    `sha256` goes into OPEN and FINISH. With TLS no certificate is verified, since nothing leaves loopback.
    With `keeps_frames` the frames are made once and kept in the directory for later rounds.
    """

    payload: Payload
    bytes_each: int
    chunk_bytes: int
    kind: ChecksumKind = ChecksumKind.CRC32C
    connections: int = 1
    is_tls: bool = False
    sha256: bytes | None = None
    keeps_frames: bool = False

    @property
    def bytes_all(self) -> int:
        return self.connections * self.bytes_each


@dataclass(frozen=True, slots=True)
class Sent:
    """The sender's figures: seconds from the first byte until all were acknowledged, and until all files were complete.

    `cpu_s` is the sender's own.
    """

    acked_s: float
    finished_s: float
    bytes: int
    frames: int
    acks: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Received:
    """The limit's own figures."""

    cpu_s: float
    syncs: int
    sync_p99_ms: float


def send(daemon: Uplinkd, load: Load, directory: Path, name: str) -> Sent:
    """Upload the new file `name` from each device. Raises process.Failed when the daemon refuses one."""
    devices = [f"sender-{number}" for number in range(load.connections)]
    opening = wire.opening(name, load.bytes_each, sha256=load.sha256)
    preambles = _records(directory / "preambles", (wire.hello(daemon.token(device)) + opening for device in devices))
    overhead = str(CHUNK_OVERHEAD_BYTES)
    return _send(daemon.port, load, directory, ["--preamble", str(preambles), "--overhead", overhead])


def delete(daemon: Uplinkd, name: str) -> None:
    """Delete the complete files whose names start with `name`, at most a thousand, as an operator would."""
    found = json.loads(daemon.ask("GET", f"/v1/files?state=complete&limit=1000&prefix={name}"))
    for file in found["files"]:
        daemon.ask("DELETE", f"/v1/files/{file['id']}")


def send_to_limit(load: Load, directory: Path, pair: certificate.Certificate | None = None) -> tuple[Sent, Received]:
    """Send the same to the limit, which stores the files below `directory` and removes them. TLS needs `pair`."""
    port, files = process.free_port(), directory / "limit"
    files.mkdir()
    command = [str(native.program("limit/receive.c", *LIBRARIES)), "--port", str(port), "--dir", str(files)]
    command += [*_common(load), "--cycle-bytes", str(CYCLE_BYTES), "--cycle-ms", str(CYCLE_MS)]
    command += ["--sha256"] if load.sha256 is not None else []
    command += ["--certificate", str(pair.path), "--key", str(pair.key_path)] if pair is not None else []
    log = directory / "limit.log"
    log.unlink(missing_ok=True)
    with process.started(command, log, port) as server:
        sent = _send(port, load, directory, ["--no-handshake", "--window", str(WINDOW_BYTES)])
        if server.process.wait(TIMEOUT_S) != 0:
            raise process.Failed(f"the limit failed: {log.read_text()}")
    shutil.rmtree(files)
    return sent, Received(**json.loads(log.read_text()))


def _send(port: int, load: Load, directory: Path, handshake: Sequence[str]) -> Sent:
    finish = wire.finish(load.bytes_each, sha256=load.sha256)
    finishes = _records(directory / "finishes", [finish] * load.connections)
    command = [str(native.program("load/send.c", *LIBRARIES)), "--port", str(port), *_common(load), *handshake]
    command += ["--payload", str(load.payload.path), "--finish", str(finishes), *(["--tls"] if load.is_tls else [])]
    command += ["--frames", str(directory / "frames")] if load.keeps_frames else []
    return Sent(**json.loads(process.run(command, TIMEOUT_S)))


def _common(load: Load) -> list[str]:
    kind = load.kind.name.lower()
    sizes = ["--bytes", str(load.bytes_each), "--chunk", str(load.chunk_bytes)]
    return ["--connections", str(load.connections), "--kind", kind, *sizes]


def _records(path: Path, records: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(struct.pack(">I", len(record)) + record for record in records))
    return path
