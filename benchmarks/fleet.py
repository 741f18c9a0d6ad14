"""Ten thousand devices: memory per idle device, reconnects per second, and latency until bytes are durable."""

import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import certificate, native, payload, process, sender, uplinkd, wire
from benchmarks.certificate import Certificate
from benchmarks.devices import UNANSWERED_MAX, Devices, Dialect, devices, raise_file_limit, save
from benchmarks.lab import Lab, Size
from benchmarks.peers import mosquitto
from benchmarks.process import Failed, Server
from benchmarks.results import Case, Result, Target, compare
from benchmarks.rounds import Contestant, Sample, Series, play
from benchmarks.uplinkd import Uplinkd
from protocol.constants import SIZE_UNKNOWN

SERVER_CORE, DEVICES_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))

CONNECTIONS_MAX = "20000"
"""The default, 10,000, leaves no room for a device that reconnects before the daemon notices that its old connection
is dead."""

MOSQUITTO_UNANSWERED_MAX = 64
"""Mosquitto's listen backlog is fixed at 100."""

CHUNK_BYTES = 4096
INGEST_CHUNK_BYTES = 256 << 10
PAYLOAD_BYTES = 64 << 20

MEMORY_POLL_S = 0.25
MEMORY_TIMEOUT_S = 5
DOWNLOAD_TIMEOUT_S = 120
KIB = 1024

RESIDENT_KIB_MAX = 6
RESUMES_PER_S_MIN = 5000
PULSE_MS = 20
"""The daemon measures pauses with a timer of this period and may report one too short by as much, so add it."""

PAUSE_MS_MAX = 50


def latency_ms_max(fdatasync_p99_ms: float) -> float:
    """The target for p99 on a disk whose fdatasync has a p99 of `fdatasync_p99_ms`."""
    return 25 + 4 * fdatasync_p99_ms


@dataclass(frozen=True, slots=True)
class _Fleet:
    """`count` devices, of which the first `appending` send chunks. With a certificate they use TLS."""

    lab: Lab
    count: int
    appending: int
    chunks_each: int
    pair: Certificate | None = None

    @property
    def suffix(self) -> str:
        return "-tls" if self.pair is not None else ""

    @property
    def interval_s(self) -> float:
        """The time between two chunks of one device."""
        return 0.1 if self.lab.size is Size.TINY else 1

    @property
    def dialect(self) -> Dialect:
        return Dialect.UPLINKD_TLS if self.pair is not None else Dialect.UPLINKD

    @contextlib.contextmanager
    def serving(self, directory: Path, prefix: tuple[str, ...] = ()) -> Iterator[Uplinkd]:
        settings = {"LIMITS__CONNECTIONS_MAX": CONNECTIONS_MAX}
        if self.pair is not None:
            settings |= {"LISTEN__TLS_CERTIFICATE": str(self.pair.path), "LISTEN__TLS_KEY": str(self.pair.key_path)}
        with uplinkd.serving(directory, settings, prefix) as daemon:
            yield daemon


def run(lab: Lab) -> Result:
    raise_file_limit()
    fleet = _Fleet(lab, lab.pick(10_000, 3_000, 50), lab.pick(1_000, 1_000, 10), lab.pick(10, 3, 2))
    pair = certificate.make(lab.directory)
    behind_tls = replace(fleet, count=lab.pick(2_000, 1_000, 20), chunks_each=lab.pick(5, 2, 2), pair=pair)
    missing = mosquitto.missing()
    cases = [*_back_at_once(fleet, missing is None), *_appending(fleet), *_back_at_once(behind_tls, False)]
    return Result("fleet", [*cases, *_appending(behind_tls)], () if missing is None else (missing,))


def _back_at_once(fleet: _Fleet, has_peer: bool) -> list[Case]:
    """Two cases from the same rounds: memory per open connection, and how fast all devices reconnect."""
    promise = f"{fleet.count} uploads opened by tokens never seen before, the daemon on one core"
    contestants = [Contestant("uplinkd", promise, lambda: _in_directory(fleet, _uplinkd_round))]
    if has_peer:
        promise = "no authentication, clean sessions, one subscription each, the broker on one core"
        contestants.append(Contestant("mosquitto", promise, lambda: _in_directory(fleet, _mosquitto_round)))
    series = play(fleet.lab, f"memory{fleet.suffix}", "KiB", contestants)
    held = [Series(each.contestant, tuple(Sample(sample.value) for sample in each.samples)) for each in series]
    memory = compare(f"memory{fleet.suffix}", "KiB/device", held, higher_is_better=False)
    resume = compare(f"resume{fleet.suffix}", "devices/s", [_resumed(each) for each in series])
    if fleet.pair is not None:
        return [memory, resume]
    each = Target("resident for each device, KiB", memory.project.median, RESIDENT_KIB_MAX, at_least=False)
    rate = Target("resumes per second on one core", resume.project.median, RESUMES_PER_S_MIN)
    return [replace(memory, targets=[each]), replace(resume, targets=[rate])]


def _resumed(series: Series) -> Series:
    """The same rounds, with reconnects per second as the value and processor time per device beside it."""
    samples = [
        Sample(each.beside["back_per_s"], {"cpu_us_each": each.beside["cpu_us_each"]}) for each in series.samples
    ]
    return Series(series.contestant, tuple(samples))


def _in_directory(fleet: _Fleet, measure: Callable[[_Fleet, Path], Sample]) -> Sample:
    """Start a new server for each round, because a server keeps the memory that it once allocated."""
    with tempfile.TemporaryDirectory(dir=fleet.lab.directory) as directory:
        return measure(fleet, Path(directory))


def _uplinkd_round(fleet: _Fleet, directory: Path) -> Sample:
    with fleet.serving(directory, _on(SERVER_CORE)) as daemon:
        first = _preambles(daemon, fleet.count, directory / "first", "upload")
        # Other scopes make other tokens, so the daemon's cache of verified tokens does not help.
        second = _preambles(daemon, fleet.count, directory / "second", "upload", "read")
        sample = _connect_cut_reconnect(
            daemon.server, daemon.port, [first, second], fleet, fleet.dialect, UNANSWERED_MAX
        )
        resumed = daemon.metric('uplinkd_upload_opens_total{outcome="resumed"}')
        if resumed != fleet.count:
            raise Failed(f"{resumed:g} uploads of {fleet.count} were resumed")
        return sample


def _mosquitto_round(fleet: _Fleet, directory: Path) -> Sample:
    with mosquitto.serving(directory / "broker", durable=False, connections=fleet.count) as broker:
        os.sched_setaffinity(broker.server.process.pid, {SERVER_CORE})
        first = save((_mqtt(f"device-{number}") for number in range(fleet.count)), directory / "first")
        return _connect_cut_reconnect(
            broker.server, broker.port, [first, first], fleet, Dialect.MQTT, MOSQUITTO_UNANSWERED_MAX
        )


def _connect_cut_reconnect(
    server: Server, port: int, preambles: Sequence[Path], fleet: _Fleet, dialect: Dialect, unanswered_max: int
) -> Sample:
    """The value is the resident memory per connection in KiB; reconnects per second are beside it."""
    first, second = preambles
    log = first.with_name("devices.log")
    before_bytes = _stable_resident_bytes(server)
    with devices(port, fleet.count, log, dialect, unanswered_max, _on(DEVICES_CORE)) as crowd:
        crowd.connect(first)
        # At least one page, because a few connections may fit into memory that the server already had.
        held_bytes = max(_stable_resident_bytes(server) - before_bytes, os.sysconf("SC_PAGE_SIZE"))
        crowd.cut()
        cpu_s = server.cpu_s()
        back_s = crowd.connect(second)
        beside = {
            "back_per_s": fleet.count / back_s,
            "cpu_us_each": (server.cpu_s() - cpu_s) * 1e6 / fleet.count,
        }
    return Sample(held_bytes / KIB / fleet.count, beside)


def _stable_resident_bytes(server: Server) -> int:
    """The resident memory, once two readings in a row agree or the timeout has passed."""
    until = time.monotonic() + MEMORY_TIMEOUT_S
    last, now = -1, server.resident_bytes()
    while last != now and time.monotonic() < until:
        time.sleep(MEMORY_POLL_S)
        last, now = now, server.resident_bytes()
    return now


def _appending(fleet: _Fleet) -> list[Case]:
    """The latency of small appends and, without TLS, the event loop's longest pause under a mixed load."""
    with tempfile.TemporaryDirectory(dir=fleet.lab.directory) as name, fleet.serving(Path(name)) as daemon:
        directory = Path(name)
        preambles = _preambles(daemon, fleet.count, directory / "first", "upload")
        with devices(daemon.port, fleet.count, directory / "devices.log", fleet.dialect) as crowd:
            crowd.connect(preambles)
            append = _append_case(fleet, daemon, crowd, directory)
            return [append] if fleet.pair is not None else [append, _pause_case(fleet, daemon, crowd, directory)]


def _append_case(fleet: _Fleet, daemon: Uplinkd, crowd: Devices, directory: Path) -> Case:
    name = f"append{fleet.suffix}"
    promise = f"p99 from a chunk's sending to its ACK, {fleet.appending} of {fleet.count} devices; {uplinkd.PROMISE}"
    contestants = [Contestant("uplinkd", promise, lambda: _append_round(fleet, daemon, crowd))]
    if fleet.pair is not None:
        return compare(name, "ms", play(fleet.lab, name, "ms", contestants), higher_is_better=False)
    promise = "p99 of 4 KiB written and fdatasynced, nothing else"
    contestants.append(Contestant("fdatasync", promise, lambda: _sync_round(fleet.lab, directory)))
    case = compare(name, "ms", play(fleet.lab, name, "ms", contestants), False, limit="fdatasync")
    bound_ms = latency_ms_max(case.limit.figure.median if case.limit is not None else 0)
    return replace(case, targets=[Target("p99 of receipt to durable ack, ms", case.project.median, bound_ms, False)])


def _append_round(fleet: _Fleet, daemon: Uplinkd, crowd: Devices) -> Sample:
    names = ("uplinkd_commit_cycles_total", "uplinkd_commit_cycle_duration_seconds_sum")
    cycles, busy_s = [daemon.metric(name) for name in names]
    done = crowd.append(fleet.appending, fleet.chunks_each, CHUNK_BYTES, fleet.interval_s)
    cycles, busy_s = daemon.metric(names[0]) - cycles, daemon.metric(names[1]) - busy_s
    beside = {"p50_ms": done.p50_ms, "max_ms": done.max_ms, "cycle_ms": busy_s * 1000 / cycles}
    return Sample(done.p99_ms, beside | {"appends_per_cycle": done.chunks / cycles})


def _sync_round(lab: Lab, directory: Path) -> Sample:
    seconds = str(lab.pick(2000, 1000, 100) / 1000)
    result = json.loads(process.run([str(native.program("limit/sync.c")), str(directory / "synced"), seconds], 60))
    return Sample(result["p99_ms"], {"p50_ms": result["p50_ms"]})


def _pause_case(fleet: _Fleet, daemon: Uplinkd, crowd: Devices, directory: Path) -> Case:
    """While devices append: a large upload, a download of the same size, and a list request."""
    size_bytes = fleet.lab.pick(2048, 256, 1) << 20
    source = payload.make(directory, min(PAYLOAD_BYTES, size_bytes))
    load = sender.Load(source, size_bytes, INGEST_CHUNK_BYTES)
    sender.send(daemon, load, directory, "downloaded")
    numbers = itertools.count()

    def measure() -> Sample:
        name = f"ingest-{next(numbers)}"
        daemon.metric("uplinkd_event_loop_pause_max_seconds")
        with ThreadPoolExecutor() as pool:
            sent = pool.submit(sender.send, daemon, load, directory, name)
            others = [pool.submit(_download, daemon, size_bytes), pool.submit(_list, daemon)]
            done = crowd.append(fleet.appending, fleet.chunks_each, CHUNK_BYTES, fleet.interval_s)
            ingest_s = sent.result().finished_s
            for other in others:
                other.result()
        pause_ms = daemon.metric("uplinkd_event_loop_pause_max_seconds") * 1000 + PULSE_MS
        sender.delete(daemon, name)
        return Sample(pause_ms, {"append_p99_ms": done.p99_ms, "ingest_s": ingest_s})

    promise = f"the loop's longest pause: appends, an ingest and a download of {size_bytes >> 20} MiB, a list"
    series = play(fleet.lab, "pause", "ms", [Contestant("uplinkd", promise, measure)])
    longest = Target("longest pause of all rounds, ms", max(series[0].values), PAUSE_MS_MAX, at_least=False)
    return replace(compare("pause", "ms", series, higher_is_better=False), targets=[longest])


def _download(daemon: Uplinkd, size_bytes: int) -> None:
    path, token = "/v1/devices/sender-0/files/downloaded/content", daemon.token("benchmark", role="operator")
    words = [str(daemon.http_port), path, token, "1", "1", "0", str(size_bytes), "1"]
    process.run([str(native.program("load/get.c")), *words], DOWNLOAD_TIMEOUT_S)


def _list(daemon: Uplinkd) -> None:
    daemon.ask("GET", "/v1/files?limit=1000")


def _preambles(daemon: Uplinkd, count: int, path: Path, *scopes: str) -> Path:
    """Write each device's HELLO and OPEN, for a file of unknown size."""
    opening = wire.opening("log", SIZE_UNKNOWN)
    return save((wire.hello(daemon.token(f"device-{number}", *scopes)) + opening for number in range(count)), path)


def _mqtt(name: str) -> bytes:
    """CONNECT and SUBSCRIBE of MQTT 3.1.1: a clean session without keep-alive, and one topic of its own at QoS 1."""
    client, topic = name.encode(), f"down/{name}".encode()
    connect = b"\x00\x04MQTT\x04\x02\x00\x00" + len(client).to_bytes(2, "big") + client
    subscribe = b"\x00\x01" + len(topic).to_bytes(2, "big") + topic + b"\x01"
    return b"\x10" + bytes([len(connect)]) + connect + b"\x82" + bytes([len(subscribe)]) + subscribe


def _on(core: int) -> tuple[str, ...]:
    return ("taskset", "--cpu-list", str(core))
