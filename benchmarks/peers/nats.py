"""NATS JetStream: a stream kept in files by one server."""

import contextlib
import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks import process
from benchmarks.peers import programs
from benchmarks.peers.broker import Broker, conversation, hear

INSTALLED = Path(__file__).parent.parent.parent / "build" / "peers" / "nats"

VERSION_MIN = (2, 10)
"""The first with `sync_interval: always`, without which an ack says nothing of the disk."""

PROMISE_DEFAULT = "JetStream, file storage, one replica: ack after write(2), synced every 2 min"

PROMISE_DURABLE = "JetStream, file storage, one replica, sync_interval: always: each message fsynced before its ack"

IN_FLIGHT_MAX = 65_536
"""The server's default is to refuse publishing beyond 10,000 messages that it has not stored."""

OWN_CONNECTIONS = 2
"""Beside the publishers': the one that creates the stream, and the one that asks whether the port is open."""

CONFIGURATION = """\
listen: "127.0.0.1:{port}"
max_connections: {connections}
jetstream {{
  store_dir: "{directory}/jetstream"
  max_buffered_msgs: {in_flight}
  max_buffered_size: 256MB
  {sync}
}}
"""

STREAM = {"name": "up", "subjects": ["up.*"], "storage": "file", "retention": "limits", "num_replicas": 1}


def missing() -> str | None:
    """Its name, and what there is in its place, when no server of a version that can sync is installed."""
    found = _program()
    if found is None:
        return "nats-server"
    if _version(found) < VERSION_MIN:
        return f"nats-server {'.'.join(map(str, VERSION_MIN))} or later ({found} is older)"
    return None


@contextlib.contextmanager
def serving(directory: Path, durable: bool, connections: int) -> Iterator[Broker]:
    """A fresh server with its files in `directory` and a stream of all that is published to up.*.

    It may hold `connections` of them. Raises process.Failed when it does not start or refuses the stream.
    """
    program = _program()
    if program is None:
        raise process.Failed("nats-server is not installed: make peers")
    directory.mkdir(parents=True)
    port = process.free_port()
    settings = directory / "nats.conf"
    sync = "sync_interval: always" if durable else "# sync_interval: its default, 2 min"
    chosen = {"port": port, "directory": directory, "sync": sync, "in_flight": IN_FLIGHT_MAX}
    settings.write_text(CONFIGURATION.format(connections=connections + OWN_CONNECTIONS, **chosen), "utf-8")
    with process.started([str(program), "-c", str(settings)], directory / "nats.log", port=port) as server:
        _create_stream(port)
        yield Broker(server, port, PROMISE_DURABLE if durable else PROMISE_DEFAULT, "nats")


def _create_stream(port: int) -> None:
    request = json.dumps(STREAM).encode()
    with conversation(port) as client:
        client.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.setup 1\r\n')
        client.sendall(b"PUB $JS.API.STREAM.CREATE.up _INBOX.setup %d\r\n%b\r\n" % (len(request), request))
        answer = hear(client, b"stream_create_response")
        answer += hear(client, b"\r\n") if not answer.endswith(b"\r\n") else b""
    if b'"error"' in answer:
        raise process.Failed(f"nats-server refuses the stream: {answer!r}")


def _program() -> Path | None:
    for installed in INSTALLED.rglob("nats-server"):
        if installed.is_file():
            return installed
    found = programs.find("nats-server")
    return Path(found) if found is not None else None


@functools.cache
def _version(program: Path) -> tuple[int, int]:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    match = re.search(r"v(\d+)\.(\d+)", told)
    return (int(match[1]), int(match[2])) if match else (0, 0)
