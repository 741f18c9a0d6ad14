"""NATS JetStream: one server that keeps a stream in files."""

import contextlib
import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks import process
from benchmarks.peers import programs
from benchmarks.peers.broker import Broker, connected, read_until

INSTALLED = Path(__file__).parent.parent.parent / "build" / "peers" / "nats"

VERSION_MIN = (2, 10)
"""The first version with `sync_interval: always`. Without it an ack does not mean that the message is on disk."""

PROMISE_DEFAULT = "JetStream, file storage, one replica: ack after write(2), synced every 2 min"

PROMISE_DURABLE = "JetStream, file storage, one replica, sync_interval: always: each message fsynced before its ack"

IN_FLIGHT_MAX = 65_536
"""By default the server refuses messages when 10,000 wait to be stored."""

OWN_CONNECTIONS = 2
"""Besides the publishers: one that creates the stream, and one that checks whether the port is open."""

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
    """The program that is missing, and the older version found instead, if no server that can sync is installed."""
    found = _program()
    if found is None:
        return "nats-server"
    if _version(found) < VERSION_MIN:
        return f"nats-server {'.'.join(map(str, VERSION_MIN))} or later ({found} is older)"
    return None


@contextlib.contextmanager
def serving(directory: Path, durable: bool, connections: int) -> Iterator[Broker]:
    """A new server with its files in `directory` and a stream of all messages to up.*, which allows `connections`.

    Raises process.Failed when it does not start or refuses the stream.
    """
    program = _program()
    if program is None:
        raise process.Failed("nats-server is not installed: run make peers")
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
    with connected(port) as client:
        client.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.setup 1\r\n')
        client.sendall(b"PUB $JS.API.STREAM.CREATE.up _INBOX.setup %d\r\n%b\r\n" % (len(request), request))
        answer = read_until(client, b"stream_create_response")
        answer += read_until(client, b"\r\n") if not answer.endswith(b"\r\n") else b""
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
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    match = re.search(r"v(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)
