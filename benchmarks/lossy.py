"""A device on a bad link: goodput, and bytes sent again, when the connection is cut every 5 s.

Each contestant has its own link, and all links lose the same time slots. The contestants are measured at the same
time, since the links are far slower than the machine.
"""

import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from benchmarks import link, native, payload, process, results, rounds, uplinkd
from benchmarks.lab import Lab, Size
from benchmarks.link import Conditions, Ends, Window
from benchmarks.payload import Payload
from benchmarks.peers import tus
from benchmarks.results import Case, Result, Target
from benchmarks.rounds import Contestant, Sample

KIB = 1024

BAD = Conditions(1_000_000, 200, queue_bytes=64 * KIB, loss=0.01, cut_every_ms=5000, silence_ms=250)
"""A long path over a mobile network. The silence is a hand-over; the queue, half a second, is that of a modem."""

MILD = Conditions(8_000_000, 40, queue_bytes=64 * KIB, loss=0.01, cut_every_ms=1000, silence_ms=50)
"""For the tiny size: the same events, but sooner."""

LIMIT = "raw TCP stream"
UNIT = "bytes/s"
BEYOND = "bytes sent again after a cut beyond those not acknowledged, at most"
BEYOND_SOCKET = "bytes sent again after a cut beyond what the socket held, at most"
RAW_PORT = "7700"
TIMEOUT_S = 300

RATIO_MIN = 0.95

Command = list[str]


class Report(TypedDict):
    """What a device prints. `in_flight_bytes`, if the protocol acknowledges, is what each cut left unacknowledged."""

    seconds: float
    resent_bytes: list[int]
    in_flight_bytes: NotRequired[list[int]]


@dataclass(frozen=True, slots=True)
class Setup:
    """What all contestants share."""

    conditions: Conditions
    payload: Payload


def run(lab: Lab) -> Result:
    """Raises process.Failed if this machine cannot make such a link."""
    conditions = MILD if lab.size is Size.TINY else BAD
    size_bytes = lab.pick(3072 * KIB, 1280 * KIB, 1024 * KIB)
    setup = Setup(conditions, payload.make(lab.directory, size_bytes))
    missing = tus.missing()
    # Compile it now, or all contestants would compile it at once.
    native.program("limit/link.c")
    with ExitStack() as stack:
        contestants = [_uplinkd(stack, lab, setup), _raw(stack, setup)]
        if missing is None:
            contestants.append(_tus(stack, lab, setup))
        name = f"{size_bytes // KIB} KiB"
        series = rounds.play_at_once(lab, name, UNIT, contestants)
    case = results.compare(name, UNIT, series, limit=LIMIT)
    return Result("lossy", [_with_targets(case, series[0])], [missing] if missing is not None else [])


def _uplinkd(stack: ExitStack, lab: Lab, setup: Setup) -> Contestant:
    ends = stack.enter_context(link.namespaces("uplinkd"))
    with link.entered(ends.server):
        server = stack.enter_context(uplinkd.serving(_directory(lab, "uplinkd")))
    token = server.token("bench-device")

    @contextlib.contextmanager
    def sender(number: int) -> Iterator[Command]:
        yield _device("uplinkd", str(server.port), token, str(setup.payload.path), f"file-{number}")

    return _contestant("uplinkd", uplinkd.PROMISE, setup, ends, sender)


def _raw(stack: ExitStack, setup: Setup) -> Contestant:
    ends = stack.enter_context(link.namespaces("raw"))
    program, size = str(native.program("limit/stream.c")), str(setup.payload.size_bytes)
    log = setup.payload.path.with_name("raw.log")

    @contextlib.contextmanager
    def sender(number: int) -> Iterator[Command]:
        del number  # each round starts its own receiver
        with link.entered(ends.server), process.started([program, "receive", RAW_PORT, size], log):
            yield [program, "send", link.SERVER_ADDRESS, RAW_PORT, size]

    return _contestant(LIMIT, "received but not stored; resumes after the last byte received", setup, ends, sender)


def _tus(stack: ExitStack, lab: Lab, setup: Setup) -> Contestant:
    ends = stack.enter_context(link.namespaces("tus"))
    with link.entered(ends.server):
        server = stack.enter_context(tus.serving(_directory(lab, "tus")))

    @contextlib.contextmanager
    def sender(number: int) -> Iterator[Command]:
        with link.entered(ends.server):
            path = server.create(f"file-{number}", setup.payload.size_bytes)
        yield _device("tus", str(server.port), path, str(setup.payload.path))

    promise = "created before the clock starts, answered 204; written, but not synced; resumed by HEAD, then PATCH"
    return _contestant("tus", promise, setup, ends, sender)


def _contestant(
    name: str, promise: str, setup: Setup, ends: Ends, sender: Callable[[int], AbstractContextManager[Command]]
) -> Contestant:
    """`sender` makes the command for a round. The round's number also seeds the link's losses."""
    numbers = itertools.count(1)

    def measure() -> Sample:
        number = next(numbers)
        with sender(number) as command, link.joined(ends, setup.conditions, number) as line, link.entered(ends.device):
            report: Report = json.loads(process.run(command, TIMEOUT_S))
        return Sample(setup.payload.size_bytes / report["seconds"], _beside(report, line.windows))

    return Contestant(name, promise, measure)


def _beside(report: Report, windows: Sequence[Window]) -> dict[str, float]:
    """What the device reports, and what its socket held at each cut: not acknowledged by TCP, as far as it knew."""
    # The last connection may be cut after the device's report, so the two lists may differ in length.
    pairs = list(zip(report["resent_bytes"], windows, strict=False))
    beside: dict[str, float] = {
        "cuts": len(report["resent_bytes"]),
        "bytes sent again": sum(report["resent_bytes"]),
        "largest window of the socket at a cut, bytes": max((window.bytes for window in windows), default=0),
        "bytes of it that waited to be sent, at most": max((window.unsent_bytes for window in windows), default=0),
        BEYOND_SOCKET: max((again - window.bytes for again, window in pairs), default=0),
    }
    if (in_flight := report.get("in_flight_bytes")) is not None:
        beside[BEYOND] = max(
            (again - unknown for again, unknown in zip(report["resent_bytes"], in_flight, strict=True)), default=0
        )
    return beside


def _device(*arguments: str) -> Command:
    return [sys.executable, "-m", "benchmarks.resuming", *arguments]


def _directory(lab: Lab, name: str) -> Path:
    directory = lab.directory / name
    directory.mkdir()
    return directory


def _with_targets(case: Case, ours: rounds.Series) -> Case:
    if case.limit is None:
        raise ValueError("the case has no limit to compare with")
    targets = (
        Target("of the raw stream's goodput", case.limit.ratio.median, RATIO_MIN),
        Target(BEYOND, max(ours.beside(BEYOND)), 0, at_least=False),
    )
    return dataclasses.replace(case, targets=targets)
