"""Eclipse Mosquitto: QoS 1 messages for an offline subscriber, in a database that is saved to disk."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from benchmarks import process
from benchmarks.peers import programs
from benchmarks.peers.broker import Broker, connected, read_until

PROGRAM = "mosquitto"

PROMISE_DEFAULT = "QoS 1, persistence true: PUBACK from memory, the database saved every 30 min"

PROMISE_DURABLE = (
    "QoS 1, autosave_on_changes true, autosave_interval 1: after each turn of the loop the whole database is written "
    "and fsynced, PUBACK goes out just before; fewer messages, since its rate falls with their number"
)
"""The most durable configuration it has. persist__backup() of 2.0 syncs the file and renames it (without syncing the
directory). mosquitto_main_loop() calls it after the turn that sent the PUBACKs, so these are early by one save."""

CONFIGURATION = """\
listener {port} 127.0.0.1
allow_anonymous true
user root
persistence true
persistence_location {directory}/
autosave_on_changes {durable}
{interval}
# By default the broker acknowledges but drops all messages beyond 1000 for an offline subscriber.
max_queued_messages 0
max_inflight_messages 20
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
connection_messages false
"""

OWN_FILES = 64
"""Descriptors that the broker needs in addition to those of its connections."""

CONNECT_KEEPER = b"\x10\x12\x00\x04MQTT\x04\x00\x00\x00\x00\x06keeper"
"""A persistent session, because the broker drops messages that have no subscriber."""

SUBSCRIBE_UP = b"\x82\x09\x00\x01\x00\x04up/#\x01"
"""QoS 1, for every topic that the publishers use."""

CONNACK, SUBACK = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x01"


def missing() -> str | None:
    """The name of the program if it is not installed."""
    return PROGRAM if programs.find(PROGRAM) is None else None


@contextlib.contextmanager
def serving(directory: Path, durable: bool, connections: int) -> Iterator[Broker]:
    """A new broker with its database in `directory`, which keeps all messages to up/# and allows `connections`.

    Raises process.Failed when it does not start or refuses the subscription.
    """
    program = programs.find(PROGRAM)
    if program is None:
        raise process.Failed("mosquitto is not installed: run make peers")
    directory.mkdir(parents=True)
    port = process.free_port()
    settings = directory / "mosquitto.conf"
    interval = "autosave_interval 1" if durable else "# autosave_interval: its default, 1800 s"
    durable_word = "true" if durable else "false"
    settings.write_text(
        CONFIGURATION.format(port=port, directory=directory, durable=durable_word, interval=interval), "utf-8"
    )
    with process.started([program, "-c", str(settings)], directory / "mosquitto.log", port=port) as server:
        _allow_files(server.process.pid, connections + OWN_FILES)
        with connected(port) as keeper:
            keeper.sendall(CONNECT_KEEPER)
            read_until(keeper, CONNACK)
            keeper.sendall(SUBSCRIBE_UP)
            read_until(keeper, SUBACK)
        yield Broker(server, port, PROMISE_DURABLE if durable else PROMISE_DEFAULT, "mqtt")


def _allow_files(pid: int, files: int) -> None:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    if soft < files:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(files, hard), hard))
