"""Hostile devices that spend uploads, or the digests of them."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import dialogue, wire
from benchmarks.fairness.crowd import Manner, working
from benchmarks.fairness.loads import HOSTILE, MIB, Load, crowded, hello
from benchmarks.fairness.stage import HOSTILE_ADDRESS, Stage
from protocol import codec, frames
from protocol.constants import SIZE_UNKNOWN, STREAM_MAX, FrameType

AT_ONCE = 16
"""Uploads that a connection has open: half of the default limit."""

CONNECTIONS = 8
"""OPENs of one connection wait for each other."""

AGAIN_S = 0.1
"""Before a refused or lost connection is made again."""

ANSWER_TIMEOUT_S = 60


def empty_files() -> Load:
    """One device that makes empty files as fast as it gets their answers."""
    return _making(lambda name, stream: wire.opening(name, 0, stream) + wire.finish(0, stream))


def abandoned_files() -> Load:
    """One device that opens uploads and gives them up, as fast as it gets the answers."""
    return _making(lambda name, stream: wire.opening(name, SIZE_UNKNOWN, stream) + codec.encode(frames.Abort(), stream))


def _making(request: Callable[[str, int], bytes]) -> Load:
    """Send requests for uploads with new names, AT_ONCE at a time."""

    @contextlib.contextmanager
    def load(stage: Stage) -> Iterator[None]:
        made = itertools.count()

        def work(over: threading.Event) -> None:
            while not over.wait(AGAIN_S):
                with contextlib.suppress(OSError, EOFError), _connected(stage) as connection:
                    _make(connection, stage.unique(), request, over, made)

        with working(*[work] * stage.some(CONNECTIONS)):
            yield
        stage.notes.append(f"{next(made)} uploads")

    return load


def _make(
    connection: "_Connection",
    name: str,
    request: Callable[[str, int], bytes],
    over: threading.Event,
    made: "itertools.count[int]",
) -> None:
    for first in range(1, STREAM_MAX - AT_ONCE, AT_ONCE):
        if over.is_set():
            return
        connection.send(b"".join([request(f"{name}-{stream}", stream) for stream in range(first, first + AT_ONCE)]))
        answered = 0
        while answered < AT_ONCE:
            answer = connection.next()
            answered += isinstance(answer, frames.Finished | frames.Aborted | frames.Error)
            if isinstance(answer, frames.Finished | frames.Aborted):
                next(made)


@dataclass(frozen=True, slots=True)
class Digests:
    """Uploads whose digests are asked for again and again, before they are computed."""

    connections: int = 3
    streams: int = 32
    file_bytes: int = 8 * MIB
    again_s: float = 0.5

    @contextlib.contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        size = max(MIB, stage.some(self.file_bytes) // MIB * MIB)
        streams = range(1, stage.some(self.streams) + 1)
        for connection in range(self.connections):
            self._store(stage, connection, streams, size)
        asked = [
            hello(stage, f"{HOSTILE}-{connection}")
            + b"".join(wire.opening(f"digest-{stream}", size, stream) for stream in streams)
            + b"".join(wire.finish(size, stream, bytes(32)) for stream in streams)
            for connection in range(self.connections)
        ]
        manner = Manner(
            stage.daemon.port,
            self.connections,
            lambda serial: asked[serial % self.connections],
            again_s=0,
            lives_s=self.again_s,
        )
        with crowded(stage, manner):
            yield

    def _store(self, stage: Stage, connection: int, streams: range, size: int) -> None:
        with dialogue.Dialogue(stage.daemon, f"{HOSTILE}-{connection}") as device:
            for stream in streams:
                device.ask(wire.opening(f"digest-{stream}", size, stream), frames.Opened)
                data = bytes(MIB)
                request = b"".join(
                    codec.encode_chunk_header(FrameType.CHUNK, stream, start, data) + data
                    for start in range(0, size, MIB)
                )
                while device.ask(request, frames.Ack).next_expected_byte < size:
                    request = b""


class _Connection:
    """An admitted device that reads frame by frame."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._input = connected.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def next(self) -> frames.ControlFrame:
        prefix = self._input.read(codec.PREFIX_BYTES)
        if len(prefix) < codec.PREFIX_BYTES:
            raise EOFError("the daemon ended the connection")
        kind, _, _, length = codec.PREFIX.unpack(prefix)
        return codec.decode(FrameType(kind), self._input.read(length))


@contextlib.contextmanager
def _connected(stage: Stage) -> Iterator[_Connection]:
    source = (HOSTILE_ADDRESS, 0)
    with socket.create_connection(("127.0.0.1", stage.daemon.port), ANSWER_TIMEOUT_S, source) as connected:
        connection = _Connection(connected)
        connection.send(hello(stage, HOSTILE))
        connection.next()  # WELCOME, or REFUSED, after which the connection ends
        yield connection
