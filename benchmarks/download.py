"""`download`: read an uploaded file over HTTP, as a whole and in small ranges at random offsets.

All contestants serve the same file, the one that the daemon stored, to the same client. Copies could be in the page
cache in larger or smaller pieces and be faster or slower for that reason.

The daemon is measured twice. First it sends the bytes itself, and for each request checks the token, looks up the file,
counts and logs. Then nginx in front of it sends them, configured as in docs/http.md (cases `accel-…`).
"""

import contextlib
import dataclasses
import functools
import http.client
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import native, payload, process, sender, uplinkd
from benchmarks.lab import Lab
from benchmarks.payload import Payload
from benchmarks.peers import accel, file_response, nginx
from benchmarks.results import Case, Result, Target, compare
from benchmarks.rounds import Contestant, Sample, play

GIB = 1 << 30

RANGE_BYTES = 64 * 1024

CHUNK_BYTES = 256 * 1024

SEED = 20_260_102
"""Any seed would do. It is fixed so that all contestants serve the same ranges in every round."""

TIMEOUT_S = 120

NAME = "download"

UPLINKD = "the bytes of a complete file, the device's token checked at each request, each request counted and logged"
LIMIT = "one thread, sendfile; checks no token, counts and logs nothing"
NGINX = "static file, sendfile, a worker for each core, no access log; checks no token"
AIOHTTP = "aiohttp's FileResponse on uvloop, one process; checks no token, counts and logs nothing"
ACCEL = "nginx sends; it asks the daemon about the device's token and the file every 10 s"


@dataclass(frozen=True, slots=True)
class Shape:
    """The requests of one case, and their number in a full, quick and tiny run. A range of 0 is the whole file.

    `of_nginx` is the ratio to nginx that the project must reach, or None.
    """

    name: str
    connections: int
    range_bytes: int
    requests: tuple[int, int, int]
    of_nginx: float | None = None


# One download of a GiB takes a fraction of a second, so several are averaged.
SHAPES = (
    Shape("whole", 1, 0, (16, 16, 2), 0.9),
    Shape("ranges-1", 1, RANGE_BYTES, (4_000, 1_000, 64)),
    Shape("ranges-32", 32, RANGE_BYTES, (4_000, 1_000, 64)),
)

# Enough requests for several seconds, so that nginx asks the daemon again in most rounds: it caches an answer for 10 s.
ACCEL_SHAPES = (
    Shape("accel-ranges-1", 1, RANGE_BYTES, (60_000, 20_000, 64)),
    Shape("accel-ranges-32", 32, RANGE_BYTES, (400_000, 100_000, 64), 0.8),
)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a contestant serves the file. All get the token `bearer`, but only the project checks it."""

    name: str
    promise: str
    server: process.Server
    port: int
    path: str
    file: Path
    bearer: str = "-"


def run(lab: Lab) -> Result:
    file = payload.make(lab.directory, lab.pick(GIB, GIB // 4, 4 << 20))
    missing = nginx.missing()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(uploaded(lab, file))
        sites = [ours, stack.enter_context(limit(lab, ours.file)), stack.enter_context(bare(lab, ours.file))]
        if missing is not None:
            return Result("download", [measure(lab, shape, file, sites, "limit") for shape in SHAPES], [missing])
        static = stack.enter_context(peer(lab, ours.file))
        cases = [measure(lab, shape, file, [*sites, static], "limit") for shape in SHAPES]
        accelerated = stack.enter_context(behind_nginx(lab, ours))
        cases += [measure(lab, shape, file, [accelerated, static]) for shape in ACCEL_SHAPES]
    return Result("download", cases)


@contextlib.contextmanager
def uploaded(lab: Lab, file: Payload) -> Iterator[Site]:
    """A daemon that holds the file, uploaded by a device."""
    with uplinkd.serving(lab.directory, accel.ACCEL) as daemon:
        sender.send(daemon, sender.Load(file, file.size_bytes, CHUNK_BYTES), lab.directory, NAME)
        token = daemon.token("sender-0")
        asking = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=TIMEOUT_S)
        with contextlib.closing(asking):
            asking.request("GET", f"/v1/devices/sender-0/files/{NAME}", headers={"Authorization": f"Bearer {token}"})
            found = json.load(asking.getresponse())
        path = f"/v1/files/{found['id']}/content"
        stored = next(daemon.data_dir.rglob(found["id"]))
        yield Site("uplinkd", UPLINKD, daemon.server, daemon.http_port, path, stored, token)


@contextlib.contextmanager
def limit(lab: Lab, file: Path) -> Iterator[Site]:
    port = process.free_port()
    command = [str(native.program("limit/sendfile.c")), str(port), str(file)]
    with process.started(command, lab.directory / "sendfile.log", port) as server:
        yield Site("limit", LIMIT, server, port, "/file", file)


@contextlib.contextmanager
def bare(lab: Lab, file: Path) -> Iterator[Site]:
    with file_response.serving(lab.directory, file) as (server, port):
        yield Site("aiohttp", AIOHTTP, server, port, "/file", file)


@contextlib.contextmanager
def behind_nginx(lab: Lab, ours: Site) -> Iterator[Site]:
    """nginx in front of the daemon of `ours`."""
    directory = lab.directory / "accel"
    directory.mkdir()
    # When root starts nginx its workers become www-data, which may have no access to the directory.
    user = "root" if os.geteuid() == 0 else ""
    place = accel.Place(directory, ours.file.parents[2], process.free_port(), ours.port, user)
    with accel.serving(place) as server:
        yield dataclasses.replace(ours, promise=ACCEL, server=server, port=place.port)


@contextlib.contextmanager
def peer(lab: Lab, file: Path) -> Iterator[Site]:
    directory = lab.directory / "nginx"
    directory.mkdir()
    with nginx.serving(directory) as running:
        (running.root / NAME).hardlink_to(file)
        yield Site("nginx", NGINX, running.server, running.port, f"/{NAME}", file)


def measure(lab: Lab, shape: Shape, file: Payload, sites: list[Site], limit: str | None = None) -> Case:
    unit = "requests/s" if shape.range_bytes else "GiB/s"
    requests = lab.pick(*shape.requests)
    contestants = [
        Contestant(site.name, site.promise, functools.partial(fetch, site, shape, file, requests)) for site in sites
    ]
    case = compare(shape.name, unit, play(lab, shape.name, unit, contestants), limit=limit)
    if shape.of_nginx is None or "nginx" not in case.peers:
        return case
    target = Target(f"{shape.name}: ratio to nginx", case.peers["nginx"].ratio.median, shape.of_nginx)
    return dataclasses.replace(case, targets=[target])


def fetch(site: Site, shape: Shape, file: Payload, requests: int) -> Sample:
    """Run the client once. Raises process.Failed when a response is not the expected one."""
    numbers = (site.port, site.path, site.bearer, shape.connections, requests, shape.range_bytes, file.size_bytes, SEED)
    cpu_s = site.server.cpu_s()
    result = json.loads(process.run([str(client()), *map(str, numbers)], TIMEOUT_S))
    cpu_s = site.server.cpu_s() - cpu_s
    rate = result["requests"] if shape.range_bytes else result["bytes"] / GIB
    return Sample(rate / result["seconds"], {"server's CPU s/GiB": cpu_s / (result["bytes"] / GIB)})


def client() -> Path:
    return native.program("load/get.c")
