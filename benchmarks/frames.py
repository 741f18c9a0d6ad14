"""Small chunks: how many 1 KiB frames per second become durable, from one device and from a hundred."""

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import payload, sender, tiny, uplinkd
from benchmarks.lab import Lab
from benchmarks.peers import broker, mosquitto, nats
from benchmarks.results import Case, Result, Target, compare
from benchmarks.rounds import Contestant, Sample, play
from benchmarks.sender import Load
from benchmarks.uplinkd import Uplinkd
from protocol.constants import ChecksumKind

UNIT = "frames/s"

CHUNK_BYTES = 1024

IN_FLIGHT_MESSAGES = 16 << 10
"""16 MiB, shared by all publishers. With more, or with 16 MiB each, both brokers were slower."""

MESSAGES_TINY = 200
"""Two from each of a hundred publishers, enough to test the harness."""

LIMIT = "limit"

LIMIT_PROMISE = "a C program that checks, writes and syncs the same frames at the same cadence, no catalog"


@dataclass(frozen=True, slots=True)
class Shape:
    """A case: how the devices send, what share of the limit the project must reach, and whether brokers take part."""

    name: str
    connections: int
    kind: ChecksumKind
    limit_ratio_min: float
    has_peers: bool


SHAPES = (
    Shape("one", 1, ChecksumKind.SUM8, 0.8, True),
    Shape("hundred", 100, ChecksumKind.SUM8, 0.4, True),
    Shape("one-crc32c", 1, ChecksumKind.CRC32C, 0.8, False),
    Shape("hundred-crc32c", 100, ChecksumKind.CRC32C, 0.4, False),
)
"""Brokers do not checksum messages, so they are compared only with the form that costs the project least."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A broker in one configuration. `messages` maps a number of connections to the messages that they publish in all.

    Rates are compared, so half a second of each is enough. The durable mosquitto gets fewer, because each of its saves
    rewrites the whole database and its rate falls with their number.
    """

    name: str
    is_durable: bool
    promise: str
    missing: Callable[[], str | None]
    serving: Callable[[Path, bool, int], AbstractContextManager[broker.Broker]]
    messages: Mapping[int, int]


PEERS = (
    Peer(
        "mosquitto",
        True,
        mosquitto.PROMISE_DURABLE,
        mosquitto.missing,
        mosquitto.serving,
        {1: 500, 100: 5_000},
    ),
    Peer(
        "mosquitto, default",
        False,
        mosquitto.PROMISE_DEFAULT,
        mosquitto.missing,
        mosquitto.serving,
        {1: 50_000, 100: 50_000},
    ),
    Peer("nats", True, nats.PROMISE_DURABLE, nats.missing, nats.serving, {1: 5_000, 100: 5_000}),
    Peer("nats, default", False, nats.PROMISE_DEFAULT, nats.missing, nats.serving, {1: 100_000, 100: 100_000}),
)

UNCOUNTED = frozenset(peer.name for peer in PEERS if not peer.is_durable)
"""These acknowledge messages that a power cut would lose."""


def run(lab: Lab) -> Result:
    """Measure each shape in turn. Raises process.Failed when a contestant fails."""
    with uplinkd.serving(lab.directory) as daemon:
        cases = [*(_case(lab, daemon, shape) for shape in SHAPES), *tiny.cases(lab, daemon)]
    missing = [absent for peer in PEERS if (absent := peer.missing()) is not None]
    return Result("frames", cases, tuple(dict.fromkeys(missing)))


def _case(lab: Lab, daemon: Uplinkd, shape: Shape) -> Case:
    frames_each = _frames(lab) // shape.connections
    directory = lab.directory / shape.name
    directory.mkdir()
    content = payload.make(directory, frames_each * CHUNK_BYTES)
    load = Load(content, content.size_bytes, CHUNK_BYTES, shape.kind, shape.connections)
    contestants = [
        Contestant("uplinkd", uplinkd.PROMISE, _daemon_measured(daemon, load, directory)),
        Contestant(LIMIT, LIMIT_PROMISE, lambda: _limit_measured(load, directory)),
        *(_peers(lab, shape, directory) if shape.has_peers else ()),
    ]
    series = play(lab, shape.name, UNIT, contestants)
    case = compare(shape.name, UNIT, series, limit=LIMIT, uncounted=UNCOUNTED)
    shutil.rmtree(directory)
    return dataclasses.replace(case, targets=list(_targets(case, shape)))


def _frames(lab: Lab) -> int:
    return lab.pick(256 << 10, 128 << 10, 1 << 10)


def _targets(case: Case, shape: Shape) -> Iterator[Target]:
    if case.limit is not None:
        yield Target("of the limit", case.limit.ratio.median, shape.limit_ratio_min)
    if case.best_peer is not None:
        yield Target("of the best durable peer", case.best_peer.median, 1.0)


def _daemon_measured(daemon: Uplinkd, load: Load, directory: Path) -> Callable[[], Sample]:
    rounds = itertools.count()

    def measure() -> Sample:
        name, before_s = f"{directory.name}-{next(rounds)}", daemon.server.cpu_s()
        sent = sender.send(daemon, load, directory, name)
        cpu_s = daemon.server.cpu_s() - before_s
        sender.delete(daemon, name)
        return _sample(sent, cpu_s)

    return measure


def _limit_measured(load: Load, directory: Path) -> Sample:
    sent, received = sender.send_to_limit(load, directory)
    return _sample(sent, received.cpu_s)


def _sample(sent: sender.Sent, cpu_s: float) -> Sample:
    """`cpu_s` is the receiver's processor time."""
    return Sample(sent.frames / sent.acked_s, {"cpu_us_per_frame": cpu_s / sent.frames * 1e6, "acks": sent.acks})


def _peers(lab: Lab, shape: Shape, directory: Path) -> Iterator[Contestant]:
    for peer in PEERS:
        if peer.missing() is None:
            yield _peer(lab, peer, shape, directory)


def _peer(lab: Lab, peer: Peer, shape: Shape, directory: Path) -> Contestant:
    messages = lab.pick(peer.messages[shape.connections], peer.messages[shape.connections], MESSAGES_TINY)

    def measure() -> Sample:
        place = directory / peer.name
        with peer.serving(place, peer.is_durable, shape.connections) as running:
            before_s = running.server.cpu_s()
            published = broker.publish(
                running,
                shape.connections,
                messages // shape.connections,
                CHUNK_BYTES,
                IN_FLIGHT_MESSAGES // shape.connections,
            )
            cpu_s = running.server.cpu_s() - before_s
        shutil.rmtree(place)
        return Sample(published.messages / published.acked_s, {"cpu_us_per_frame": cpu_s / published.messages * 1e6})

    return Contestant(peer.name, f"{peer.promise}; {messages:,} messages", measure)
