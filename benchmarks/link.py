"""A bad link on one machine: two network namespaces joined with a delay, a rate limit, loss and cuts."""

import contextlib
import ctypes
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import native, process

INTERFACE = "link0"
DEVICE_ADDRESS = "10.98.0.1"
SERVER_ADDRESS = "127.0.0.1"
"""The device reaches the server's loopback over the link, so servers need to listen only there."""

CLONE_NEWNET = 0x40000000
"""The type of namespace for setns(2). Python has os.setns only since 3.12."""

COMMAND_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the link behaves, in both directions.

    Packets beyond `queue_bytes` in the queue are dropped. `loss` is the share of time slots that lose their packets.
    Every `cut_every_ms` the link loses all packets in flight, stays silent for `silence_ms`, and then every connection
    over it is reset at both ends.
    """

    rate_bits_per_s: int
    round_trip_ms: int
    queue_bytes: int
    loss: float
    cut_every_ms: int
    silence_ms: int


@dataclass(frozen=True, slots=True)
class Ends:
    """The names of the two namespaces."""

    device: str
    server: str


@dataclass(frozen=True, slots=True)
class Window:
    """Bytes in a device's socket that TCP had not acknowledged at a cut; `unsent_bytes` of them had not been sent."""

    bytes: int
    unsent_bytes: int


class Line:
    """A running link. `windows` has one entry for each cut connection that had received anything from the server."""

    def __init__(self) -> None:
        self.windows: list[Window] = []


def unavailable() -> str | None:
    """Why this machine cannot make such a link, or None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "the kernel has no TUN devices: /dev/net/tun is missing"
    return None


@contextlib.contextmanager
def namespaces(label: str) -> Iterator[Ends]:
    """Two new namespaces, each with only a loopback interface. Raises process.Failed if they cannot be made."""
    reason = unavailable()
    if reason is not None:
        raise process.Failed(f"the link cannot be made: {reason}")
    ends = Ends(f"uplinkd-{os.getpid()}-{label}-d", f"uplinkd-{os.getpid()}-{label}-s")
    with contextlib.ExitStack() as stack:
        for name in (ends.device, ends.server):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        _ip("-n", ends.server, "link", "set", "lo", "up")
        yield ends


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Move this thread, and the programs it starts, into the namespace for the block."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(Path("/proc/thread-self/ns/net").open("rb"))
        there = stack.enter_context(Path(f"/run/netns/{namespace}").open("rb"))
        _set_namespace(there.fileno())
        stack.callback(_set_namespace, home.fileno())
        yield


@contextlib.contextmanager
def joined(ends: Ends, conditions: Conditions, seed: int) -> Iterator[Line]:
    """Join the namespaces by a link for the block. The link's clock starts with the first packet.

    Links with the same seed lose packets in the same time slots, whatever the traffic.
    """
    figures = (
        conditions.rate_bits_per_s,
        conditions.round_trip_ms * 500,
        conditions.queue_bytes,
        round(conditions.loss * 1_000_000),
        seed,
        conditions.cut_every_ms,
        conditions.silence_ms,
    )
    command = [str(native.program("limit/link.c")), ends.device, ends.server, *map(str, figures)]
    line = Line()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        cutter = threading.Thread(target=_follow_cuts, args=(running, ends, line))
        try:
            if running.stdout is None or running.stdout.readline() != "up\n":
                raise process.Failed(f"{command[0]} made no link between {ends.device} and {ends.server}")
            _set_addresses(ends)
            cutter.start()
            yield line
        finally:
            running.terminate()
            if cutter.ident is not None:
                cutter.join()


def _set_addresses(ends: Ends) -> None:
    for name in (ends.device, ends.server):
        _ip("-n", name, "link", "set", INTERFACE, "up")
        with entered(name):
            # Otherwise the kernel drops packets with a loopback address on any other interface.
            Path(f"/proc/sys/net/ipv4/conf/{INTERFACE}/route_localnet").write_text("1")
    _ip("-n", ends.device, "address", "add", DEVICE_ADDRESS, "dev", INTERFACE)
    _ip("-n", ends.device, "route", "add", SERVER_ADDRESS, "dev", INTERFACE, "src", DEVICE_ADDRESS)
    _ip("-n", ends.server, "route", "add", DEVICE_ADDRESS, "dev", INTERFACE)


def _follow_cuts(running: "subprocess.Popen[str]", ends: Ends, line: Line) -> None:
    for _ in running.stdout or ():
        # The device's end first: a reset from the server's end could arrive before ss reads the device's socket.
        line.windows += windows(_kill_connections(ends.device, SERVER_ADDRESS))
        _kill_connections(ends.server, DEVICE_ADDRESS)


def _kill_connections(namespace: str, other: str) -> list[str]:
    """Reset the connections to `other`. Returns a line of ss for each, with its state before."""
    command = [
        "ip",
        "netns",
        "exec",
        namespace,
        "ss",
        "-t",
        "--kill",
        "--info",
        "--oneline",
        "--no-header",
        "dst",
        other,
    ]
    return process.run(command, COMMAND_TIMEOUT_S).splitlines()


def windows(ss_lines: Sequence[str]) -> list[Window]:
    """Parse what ss prints about a device's connections.

    A connection that received nothing is left out: it did not know where to resume, so its cut repeats no bytes.
    """
    return [_window(each) for each in ss_lines if each.startswith("ESTAB") and " bytes_received:" in each]


def _window(ss_line: str) -> Window:
    """The third column of ss counts unacknowledged bytes; `notsent` counts those of them that were never sent."""
    unsent = re.search(r" notsent:(\d+)", ss_line)
    return Window(int(ss_line.split()[2]), int(unsent[1]) if unsent else 0)


def _set_namespace(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


def _ip(*arguments: str) -> None:
    process.run(["ip", *arguments], COMMAND_TIMEOUT_S)
