"""Hostile and odd clients of the control plane."""

import contextlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from benchmarks import dialogue, wire
from benchmarks.fairness.crowd import Manner, working
from benchmarks.fairness.loads import HOSTILE, Load, crowded
from benchmarks.fairness.stage import Stage
from protocol import codec, frames
from protocol.constants import FrameType

MIB = 1 << 20

FILE_BYTES = 4 * MIB
"""More than a socket's buffers hold, so a slow reader is felt."""

TRY_TIMEOUT_S = 5
TRY_INTERVAL_S = 0.25

GET_METRICS = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
GET_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def idle(connections: int) -> Load:
    """Connections that ask nothing."""
    return lambda stage: crowded(stage, Manner(stage.daemon.http_port, stage.some(connections)))


def pipelining(connections: int) -> Load:
    """Clients that ask for the metrics without end, and read no answer."""

    def load(stage: Stage) -> AbstractContextManager[None]:
        asked = GET_METRICS * 256
        count = stage.some(connections)
        return crowded(
            stage, Manner(stage.daemon.http_port, count, lambda _: asked, drip=asked, drip_s=0.05, read_bytes=0)
        )

    return load


def asking_for_health(connections: int) -> Load:
    """Clients without a token that ask whether the daemon is well, twenty times a second each."""

    def load(stage: Stage) -> AbstractContextManager[None]:
        count = stage.some(connections)
        return crowded(stage, Manner(stage.daemon.http_port, count, lambda _: GET_HEALTH, drip=GET_HEALTH, drip_s=0.05))

    return load


def reading_slowly(connections: int, bytes_per_s: int, devices: int) -> Load:
    """Downloads at `bytes_per_s` each, of devices that read files of their own; and others who download at once."""

    @contextlib.contextmanager
    def load(stage: Stage) -> Iterator[None]:
        owners = [f"{HOSTILE}-{number}" for number in range(stage.some(devices))]
        requests = [_download(stage, owner) for owner in owners]
        manner = Manner(
            stage.daemon.http_port,
            stage.some(connections),
            lambda serial: requests[serial % len(requests)],
            read_bytes=max(1, bytes_per_s // 20),
            receive_buffer_bytes=4096,
        )
        other = _store(stage, "reader")
        with crowded(stage, manner), working(lambda over: _try(stage, lambda: _read(stage, other), over)):
            yield

    return load


def _try(stage: Stage, attempt: Callable[[], None], over: threading.Event) -> None:
    """Attempt something again and again, and count how often it succeeds."""
    while not over.wait(TRY_INTERVAL_S):
        succeeded = False
        with contextlib.suppress(OSError, urllib.error.URLError):
            attempt()
            succeeded = True
        stage.tries.made += 1
        stage.tries.succeeded += succeeded


def _read(stage: Stage, path: str) -> None:
    """Download a file as its owner. Raises OSError when that fails or takes too long."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{stage.daemon.http_port}{path}",
        headers={"Authorization": f"Bearer {stage.daemon.token('reader')}"},
    )
    until = time.monotonic() + TRY_TIMEOUT_S
    with urllib.request.urlopen(request, timeout=TRY_TIMEOUT_S) as answer:  # noqa: S310 - the URL is http, made here
        while answer.read(MIB):
            if time.monotonic() > until:
                raise TimeoutError("the download took too long")


def _download(stage: Stage, owner: str) -> bytes:
    """The request of `owner` for a file of its own."""
    path = _store(stage, owner)
    token = stage.daemon.token(owner)
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def _store(stage: Stage, owner: str) -> str:
    """Upload a file, and return the path of its content."""
    name, data = "read-me.bin", bytes(MIB)
    with dialogue.Dialogue(stage.daemon, owner) as device:
        device.ask(wire.opening(name, FILE_BYTES), frames.Opened)
        request = b"".join(
            codec.encode_chunk_header(FrameType.CHUNK, 1, start, data) + data for start in range(0, FILE_BYTES, MIB)
        )
        finished = device.ask(request + wire.finish(FILE_BYTES), frames.Finished)
    return f"/v1/files/{finished.upload_id:016x}/content"
