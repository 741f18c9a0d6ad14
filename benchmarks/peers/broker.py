"""What the message brokers share: a port to publish to, and the C program that plays their publishers."""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import native, process

PUBLISH_TIMEOUT_S = 300

HANDSHAKE_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker on loopback. `promise` says how safe a message is when it is acknowledged."""

    server: process.Server
    port: int
    promise: str
    protocol: str
    """The protocol of `publish`: "mqtt" or "nats"."""


@dataclass(frozen=True, slots=True)
class Publication:
    """Seconds until the last message was acknowledged, and what was sent."""

    acked_s: float
    messages: int
    sender_cpu_s: float


def publish(
    broker: Broker, connections: int, messages_each: int, payload_bytes: int, window_messages: int
) -> Publication:
    """Publish from all connections at once, with at most `window_messages` unacknowledged on each.

    Raises process.Failed when the broker refuses a message or stops acknowledging.
    """
    sizes = {
        "--port": broker.port,
        "--connections": connections,
        "--messages": messages_each,
        "--payload": payload_bytes,
        "--window": window_messages,
    }
    words = [word for name, number in sizes.items() for word in (name, str(number))]
    program = str(native.program("load/publish.c"))
    result = json.loads(process.run([program, "--protocol", broker.protocol, *words], PUBLISH_TIMEOUT_S))
    return Publication(result["acked_s"], result["messages"], result["cpu_s"])


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A blocking connection to set up the broker before the measurement."""
    with socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_TIMEOUT_S) as connection:
        yield connection


def read_until(connection: socket.socket, until: bytes) -> bytes:
    """Read up to and including `until`. Raises process.Failed when the broker closes the connection first."""
    received = b""
    while until not in received:
        piece = connection.recv(4096)
        if not piece:
            raise process.Failed(f"the broker closed the connection after {received!r}, before {until!r}")
        received += piece
    return received
