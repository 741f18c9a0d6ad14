"""Times and memory must not grow with the number of files, nor with the size of one.

The "limit" of each case is the figure for the smallest catalog, or for the smallest file.
"""

import contextlib
import dataclasses
import http.client
import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from benchmarks import payload, process, seeds, sender, wire
from benchmarks.dialogue import Dialogue
from benchmarks.figures import paired_ratio
from benchmarks.lab import Lab, Size
from benchmarks.results import Case, Result, Target, compare
from benchmarks.rounds import Contestant, Sample, Series, play
from benchmarks.seeds import PAGE_FILES, Seed
from benchmarks.uplinkd import PROMISE, Uplinkd, serving
from control.listing import write_cursor
from daemon.catalog.records import Position
from protocol import frames

FILES = {
    Size.FULL: (1_000, 10_000, 100_000, 1_000_000),
    Size.QUICK: (1_000, 10_000, 100_000, 1_000_000),
    Size.TINY: (1_000, 2_000),
}

GROWTH_MAX = 1.5
START_S_MAX = 1.0
MEMORY_MIB_MAX = 10.0

UPLOADS = 20
"""Uploads per sample, one after the other; the sample is their median."""

PAGES = 10
"""Requests of each list per sample."""

CLEANUPS = 3
"""Cleanups per sample."""

DEADLINE_S = 60
POLL_S = 0.05

MIB = 1 << 20
CHUNK_BYTES = 256 << 10
PAYLOAD_BYTES = 64 << 20

SETTINGS = {
    # An upload becomes stale as soon as its device disconnects, and cleanup runs only on request.
    "CLEANUP__STALE_S": "0.001",
    "CLEANUP__INTERVAL_S": "86400",
    # Rejected files in the seeds are years old and must survive cleanup.
    "CLEANUP__REJECTED_S": "100000000",
    # One connection opens all uploads that then expire.
    "LIMITS__STREAMS_MAX": "1000",
}


class Metric(NamedTuple):
    """The name of a figure in a sample, and the name of its case."""

    name: str
    case: str


METRICS = (
    Metric("open_ms", "open a new file"),
    Metric("finish_ms", "finish a file"),
    Metric("first_page_ms", "list, first page"),
    Metric("middle_page_ms", "list, a page in the middle"),
    Metric("device_page_ms", "list, one device's files"),
    Metric("state_page_ms", "list, the rejected"),
    Metric("job_page_ms", "list, a prefix of one page"),
    Metric("half_page_ms", "list, a prefix of half of all"),
    Metric("cleanup_ms", "cleanup of the expired"),
)


def run(lab: Lab) -> Result:
    template = seeds.make_template(lab.directory)
    with contextlib.ExitStack() as stack:
        borrowed = []
        for files in FILES[lab.size]:
            lab.report(f"seed: {files} files")
            borrowed.append(stack.enter_context(seeds.borrowed(lab.directory / str(files), template, files)))
        cases = [_start_up(lab, borrowed), *_work(lab, borrowed)]
    return Result("growth", [*cases, *_one_file(lab)])


def _start_up(lab: Lab, borrowed: Sequence[Seed]) -> Case:
    case = _case("start-up", "s", _play(lab, "start-up", "s", borrowed, _start))
    slowest = Target(
        "seconds until it is ready, whatever the catalog", max(_medians(case)), START_S_MAX, at_least=False
    )
    return dataclasses.replace(case, targets=[*case.targets, slowest])


def _start(seed: Seed) -> Sample:
    """Seconds until the daemon logs that it is ready, by the log's timestamp."""
    began_s = time.time()
    with serving(seed.directory, SETTINGS) as daemon:
        return Sample(_ready_s(daemon) - began_s)


def _ready_s(daemon: Uplinkd) -> float:
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        lines = [json.loads(line) for line in daemon.server.log.read_text().splitlines() if line.startswith("{")]
        started = [line for line in lines if line["event"] in {"ready", "stopped"}]
        if started and started[-1]["event"] == "ready":
            return datetime.fromisoformat(started[-1]["timestamp"]).timestamp()
        time.sleep(POLL_S)
    raise process.Failed(f"the daemon was not ready within {DEADLINE_S} s: {daemon.server.log.read_text()[-2000:]}")


def _work(lab: Lab, borrowed: Sequence[Seed]) -> list[Case]:
    expired = lab.pick(100, 100, 10)
    with contextlib.ExitStack() as stack:
        operators = {seed: Operator(stack.enter_context(serving(seed.directory, SETTINGS)), seed) for seed in borrowed}
        series = _play(lab, "work", "ms to open", borrowed, lambda seed: operators[seed].sample(expired))
    cases = [_case(name, "ms", _of(series, figure)) for figure, name in METRICS]
    return [*cases, _memory("resident memory", _of(series, "resident_mib"))]


class Operator:
    """A user of one daemon who times each operation."""

    def __init__(self, daemon: Uplinkd, seed: Seed) -> None:
        self._daemon = daemon
        self._http = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=DEADLINE_S)
        self._headers = {"Authorization": f"Bearer {daemon.token('benchmark', 'read', 'admin', role='operator')}"}
        self._lists = {
            "first_page_ms": "",
            "middle_page_ms": f"&cursor={write_cursor(Position(*seed.middle))}",
            "device_page_ms": "&device=device-1",
            "state_page_ms": "&state=rejected",
            "job_page_ms": "&prefix=odd/job-1/",
            "half_page_ms": "&prefix=even/",
        }
        self._uploads = 0

    def sample(self, expired: int) -> Sample:
        """Run every operation. The value is the time to open; all other times in ms are beside it."""
        uploads = self._upload()
        lists = {name: self._list(query) for name, query in self._lists.items()}
        cleanup = {"cleanup_ms": statistics.median(self._clean_up(expired) for _ in range(CLEANUPS))}
        self._http.close()
        memory = {"resident_mib": self._daemon.server.resident_bytes() / MIB}
        return Sample(uploads["open_ms"], uploads | lists | cleanup | memory)

    def _upload(self) -> dict[str, float]:
        opens, finishes = [], []
        with Dialogue(self._daemon, "newcomer") as device:
            for stream in range(1, UPLOADS + 1):
                opening = wire.opening(self._new_name(), len(seeds.CONTENT), stream)
                opens.append(_ms(partial(device.ask, opening, frames.Opened)))
                device.send(seeds.CONTENT, stream)
                finish = wire.finish(len(seeds.CONTENT), stream)
                finishes.append(_ms(partial(device.ask, finish, frames.Finished)))
        return {"open_ms": statistics.median(opens), "finish_ms": statistics.median(finishes)}

    def _list(self, query: str) -> float:
        return statistics.median(_ms(partial(self._page, query)) for _ in range(PAGES))

    def _page(self, query: str) -> None:
        found = self._ask("GET", f"/v1/files?limit={PAGE_FILES}{query}")["files"]
        if not isinstance(found, list) or len(found) != PAGE_FILES:
            raise process.Failed(f"the list {query!r} is not a page of {PAGE_FILES} files: {str(found)[:200]}")

    def _clean_up(self, expired: int) -> float:
        with Dialogue(self._daemon, "newcomer") as device:
            device.store_all([self._new_name() for _ in range(expired)], seeds.CONTENT)
        until = time.monotonic() + DEADLINE_S
        # The daemon may need a moment to notice that the device has disconnected.
        while self._ask("POST", "/v1/cleanup", '{"dry_run": true}')["stale_deleted"] != expired:
            if time.monotonic() > until:
                raise process.Failed(f"{expired} uploads did not become stale within {DEADLINE_S} s")
            time.sleep(POLL_S)
        return _ms(lambda: self._ask("POST", "/v1/cleanup", "{}"))

    def _ask(self, method: str, path: str, body: str | None = None) -> Mapping[str, object]:
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        self._http.request(method, path, body, headers)
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status != http.client.OK:
            raise process.Failed(f"{method} {path} gave {answer.status}: {content!r}")
        found: dict[str, object] = json.loads(content)
        return found

    def _new_name(self) -> str:
        # Named like the seeds, so that half of the newest files have the prefix that half of all files have.
        self._uploads += 1
        return f"{seeds.ROOTS[self._uploads % 2]}/new/{self._uploads}"


def _one_file(lab: Lab) -> list[Case]:
    """The daemon's memory during and after an upload, of a small file and of a large one."""
    sizes = (lab.pick(100, 100, 1) * MIB, lab.pick(10_240, 1_024, 4) * MIB)
    source = payload.make(lab.directory, min(PAYLOAD_BYTES, sizes[-1]))
    # Each daemon is new, so there is no warm-up round, and three rounds are enough at ten gigabytes each.
    rounds = range(lab.pick(3, 5, 2))
    samples = [tuple(_receive(lab, source, size) for size in sizes) for _ in rounds]
    series = [
        Series(Contestant(f"a file of {size // MIB} MiB", PROMISE, partial(_receive, lab, source, size)), own)
        for size, own in zip(sizes, zip(*samples, strict=True), strict=True)
    ]
    return [
        _memory("peak memory while a file is received", _of(series, "peak_mib")),
        _memory("resident memory after a file", _of(series, "after_mib")),
    ]


def _receive(lab: Lab, source: payload.Payload, size: int) -> Sample:
    directory = lab.directory / "receiving"
    directory.mkdir()
    with serving(directory) as daemon:
        server = daemon.server
        server.forget_peak()
        sender.send(daemon, sender.Load(source, size, CHUNK_BYTES), directory, "file")
        peak, after = server.peak_resident_bytes() / MIB, server.resident_bytes() / MIB
    shutil.rmtree(directory)
    lab.report(f"one file: {size // MIB} MiB: {peak:.4g} MiB at most, {after:.4g} MiB afterwards")
    return Sample(peak, {"peak_mib": peak, "after_mib": after})


def _play(lab: Lab, case: str, unit: str, borrowed: Sequence[Seed], measure: Callable[[Seed], Sample]) -> list[Series]:
    return play(
        lab, case, unit, [Contestant(f"{seed.files} files", PROMISE, partial(measure, seed)) for seed in borrowed]
    )


def _of(series: Sequence[Series], name: str) -> list[Series]:
    """The same series, with the figure `name` as their value."""
    return [Series(each.contestant, tuple(Sample(value) for value in each.beside(name))) for each in series]


def _case(name: str, unit: str, series: Sequence[Series]) -> Case:
    """`series` ascend in size: the last is the project's figure, the first is the limit it is compared with."""
    smallest, largest = series[0], series[-1]
    case = compare(name, unit, [largest, smallest], higher_is_better=False, limit=smallest.contestant.name)
    growth = max(paired_ratio(smallest.values, each.values, higher_is_better=False).median for each in series[1:])
    what = f"times the figure of {smallest.contestant.name}, at most"
    beside = {f"{each.contestant.name}, {unit}": statistics.median(each.values) for each in series}
    return dataclasses.replace(case, beside=beside, targets=[Target(what, growth, GROWTH_MAX, at_least=False)])


def _memory(name: str, series: Sequence[Series]) -> Case:
    case = _case(name, "MiB", series)
    grown = max(_medians(case)) - statistics.median(series[0].values)
    what = f"MiB more than with {series[0].contestant.name}, at most"
    return dataclasses.replace(case, targets=[Target(what, grown, MEMORY_MIB_MAX, at_least=False)])


def _medians(case: Case) -> list[float]:
    return list(case.beside.values())


def _ms(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000
