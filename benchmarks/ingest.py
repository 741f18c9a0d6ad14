"""Large uploads: GiB/s from the first byte until the files are complete and durable."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import certificate, payload, sender, uplinkd
from benchmarks.lab import Lab
from benchmarks.payload import Payload
from benchmarks.peers import nginx, rsync, sftp, tus
from benchmarks.peers.receiver import Receiver
from benchmarks.results import Case, Result, Target, compare
from benchmarks.rounds import Contestant, Sample, play
from benchmarks.sender import Load
from benchmarks.uplinkd import Uplinkd

UNIT = "GiB/s"

MIB = 1 << 20
GIB = 1 << 30

CHUNK_BYTES = 256 << 10

DEVICES = 8
"""Devices that send at once in the case `eight`. Together they send as much as the one device of the other cases."""

CPU = "cpu_s_per_gib"

LIMIT_PROMISE = "a C program that checks, writes and syncs the same frames at the same cadence, no catalog"

RATIO_MIN = 0.90
RATIO_LOW_MIN = 0.85
RATIO_TLS_MIN = 0.80
CPU_RATIO_MAX = 1.5
PEER_RATIO_MIN = 2.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server that receives files."""

    name: str
    missing: Callable[[], str | None]
    serving: Callable[[Path, bool], AbstractContextManager[Receiver]]


NGINX = Peer("nginx", nginx.missing, nginx.serving)
RSYNC = Peer("rsync", rsync.missing, rsync.serving)
SFTP = Peer("sftp", sftp.missing, lambda directory, _: sftp.serving(directory))
TUS = Peer("tus", tus.missing, tus.serving)


@dataclass(frozen=True, slots=True)
class Shape:
    """A case: how the devices send, and the peers that take part."""

    name: str
    peers: tuple[Peer, ...]
    connections: int = 1
    is_tls: bool = False
    has_sha256: bool = False


SHAPES = (
    Shape("one", (NGINX, RSYNC, SFTP, TUS)),
    Shape("eight", (NGINX, RSYNC, SFTP), connections=DEVICES),
    Shape("tls", (NGINX, SFTP), is_tls=True),
    Shape("sha256", (NGINX, RSYNC, SFTP), has_sha256=True),
)


def run(lab: Lab) -> Result:
    """Measure each shape in turn. Raises process.Failed when a contestant fails."""
    cases = [_case(lab, shape) for shape in SHAPES]
    peers = dict.fromkeys(peer for shape in SHAPES for peer in shape.peers)
    return Result("ingest", cases, tuple(absent for peer in peers if (absent := peer.missing()) is not None))


def _case(lab: Lab, shape: Shape) -> Case:
    directory = lab.directory / shape.name
    directory.mkdir()
    content = payload.make(directory, lab.pick(2 * GIB, 128 * MIB, MIB) // shape.connections)
    sha256 = _sha256(content) if shape.has_sha256 else None
    load = Load(
        content, content.size_bytes, CHUNK_BYTES, connections=shape.connections, sha256=sha256, keeps_frames=True
    )
    with contextlib.ExitStack() as servers:
        contestants = list(_contestants(shape, dataclasses.replace(load, is_tls=shape.is_tls), directory, servers))
        series = play(lab, shape.name, UNIT, contestants)
    shutil.rmtree(directory)
    case = compare(shape.name, UNIT, series, limit="limit")
    return dataclasses.replace(case, targets=list(_targets(case, shape)))


def _contestants(shape: Shape, load: Load, directory: Path, servers: contextlib.ExitStack) -> Iterator[Contestant]:
    pair = certificate.make(directory) if shape.is_tls else None
    daemon = servers.enter_context(uplinkd.serving(directory, _settings(pair)))
    promise = f"{uplinkd.PROMISE}, CRC32C{' and SHA-256' if shape.has_sha256 else ''} of the file kept"
    yield Contestant("uplinkd", promise, _after_sync(_daemon_measure(daemon, load, directory)))
    yield Contestant("limit", LIMIT_PROMISE, _after_sync(lambda: _limit_measure(load, directory, pair)))
    for peer in shape.peers:
        if peer.missing() is None:
            own = directory / peer.name
            own.mkdir()
            receiver = servers.enter_context(peer.serving(own, shape.is_tls))
            promise = receiver.promise + ("; no SHA-256" if shape.has_sha256 else "")
            yield Contestant(peer.name, promise, _after_sync(_peer_measure(receiver, load)))


def _settings(pair: certificate.Certificate | None) -> Mapping[str, str]:
    if pair is None:
        return {}
    return {"LISTEN__TLS_CERTIFICATE": str(pair.path), "LISTEN__TLS_KEY": str(pair.key_path)}


def _after_sync(measure: Callable[[], Sample]) -> Callable[[], Sample]:
    def measure_after_sync() -> Sample:
        # Otherwise the disk would still free files and write pages of the previous contestant.
        os.sync()
        return measure()

    return measure_after_sync


def _daemon_measure(daemon: Uplinkd, load: Load, directory: Path) -> Callable[[], Sample]:
    numbers = itertools.count()

    def measure() -> Sample:
        name, cycles = f"ingest-{next(numbers)}", daemon.metric("uplinkd_commit_cycles_total")
        before_s = daemon.server.cpu_s()
        sent = sender.send(daemon, load, directory, name)
        cpu_s = daemon.server.cpu_s() - before_s
        cycles = daemon.metric("uplinkd_commit_cycles_total") - cycles
        sender.delete(daemon, name)
        return _sample(load, sent.finished_s, cpu_s, {"cycles": cycles, "sender_cpu_s": sent.cpu_s})

    return measure


def _limit_measure(load: Load, directory: Path, pair: certificate.Certificate | None) -> Sample:
    sent, received = sender.send_to_limit(load, directory, pair)
    beside = {"syncs": float(received.syncs), "sync_p99_ms": received.sync_p99_ms}
    return _sample(load, sent.finished_s, received.cpu_s, beside)


def _peer_measure(receiver: Receiver, load: Load) -> Callable[[], Sample]:
    names = [f"file-{number}" for number in range(load.connections)]

    def measure() -> Sample:
        before_s = receiver.server.cpu_s()
        took_s = receiver.put_many(load.payload, names)
        cpu_s = receiver.server.cpu_s() - before_s
        for name in names:
            receiver.delete(name)
        return _sample(load, took_s, cpu_s)

    return measure


def _sample(load: Load, took_s: float, cpu_s: float, beside: Mapping[str, float] | None = None) -> Sample:
    gib = load.bytes_all / GIB
    return Sample(gib / took_s, {CPU: cpu_s / gib, **(beside or {})})


def _targets(case: Case, shape: Shape) -> Iterator[Target]:
    limit = case.limit
    if limit is not None and shape.is_tls:
        yield Target("of the limit behind OpenSSL", limit.ratio.median, RATIO_TLS_MIN)
    elif limit is not None:
        yield Target("of the limit", limit.ratio.median, RATIO_MIN)
        yield Target("of the limit, 95 % interval's low end", limit.ratio.low, RATIO_LOW_MIN)
        cpu_ratio = case.beside[CPU] / limit.beside[CPU]
        yield Target("of the limit's CPU seconds per GiB", cpu_ratio, CPU_RATIO_MAX, at_least=False)
    if case.best_peer is not None:
        yield Target("of the best peer", case.best_peer.median, PEER_RATIO_MIN)


def _sha256(content: Payload) -> bytes:
    with content.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
