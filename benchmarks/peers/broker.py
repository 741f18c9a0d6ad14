"""What the message brokers have in common: a port to publish to, and the sender that plays their clients."""

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
    """A running broker on loopback. `promise` says what is kept of a message when its ack goes out."""

    server: process.Server
    port: int
    promise: str
    protocol: str
    """What `publish` shall speak: "mqtt" or "nats"."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What it took until each message was acknowledged."""

    acked_s: float
    messages: int
    sender_cpu_s: float


def publish(
    broker: Broker, connections: int, messages_each: int, payload_bytes: int, window_messages: int
) -> Publication:
    """Publish from all connections at once, `window_messages` at most unacknowledged on each.

    Raises process.Failed when the broker refuses a message or stops to acknowledge.
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
    told = json.loads(process.run([program, "--protocol", broker.protocol, *words], PUBLISH_TIMEOUT_S))
    return Publication(told["acked_s"], told["messages"], told["cpu_s"])


@contextlib.contextmanager
def conversation(port: int) -> Iterator[socket.socket]:
    """A blocking connection for what has to be said once, before anything is measured."""
    with socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_TIMEOUT_S) as connection:
        yield connection


def hear(connection: socket.socket, until: bytes) -> bytes:
    """What arrives, up to and with `until`. Raises process.Failed when the broker closes before."""
    heard = b""
    while until not in heard:
        fresh = connection.recv(4096)
        if not fresh:
            raise process.Failed(f"the broker closed after {heard!r}: {until!r} was to come")
        heard += fresh
    return heard
