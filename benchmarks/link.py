"""A bad link on one machine: two network namespaces, and between them a delay, a rate, loss and cuts."""

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
"""For the device the server's own loopback lies behind the link, so that servers need to listen nowhere else."""

CLONE_NEWNET = 0x40000000
"""The kind of namespace, for setns(2): Python has os.setns from 3.12 on only."""

COMMAND_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Weather:
    """What the link is like, in both directions.

    `queue_bytes`: what may wait for the wire; more is dropped. `loss`: the share of moments that are lost.
    Every `cut_every_ms` all that is under way is lost, the link is silent for `silence_ms`, and every connection over
    it is then dead at both ends, which both are told at once.
    """

    rate_bits_per_s: int
    round_trip_ms: int
    queue_bytes: int
    loss: float
    cut_every_ms: int
    silence_ms: int


@dataclass(frozen=True, slots=True)
class Ends:
    """The two namespaces' names."""

    device: str
    server: str


@dataclass(frozen=True, slots=True)
class Window:
    """What a device's TCP had taken and nobody had confirmed at a cut; `unsent_bytes` of it still waited there."""

    bytes: int
    unsent_bytes: int


class Line:
    """A link that runs. `windows`: one for each connection that was cut so far and had heard from the server."""

    def __init__(self) -> None:
        self.windows: list[Window] = []


def unavailable() -> str | None:
    """Why no such link can be made here; None when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun: the kernel has no TUN devices"
    return None


@contextlib.contextmanager
def namespaces(label: str) -> Iterator[Ends]:
    """Two new namespaces with nothing but a loopback each. Raises process.Failed where they cannot be made."""
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
    """This thread, and the programs it starts, are in the namespace until the block ends."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(Path("/proc/thread-self/ns/net").open("rb"))
        there = stack.enter_context(Path(f"/run/netns/{namespace}").open("rb"))
        _set_namespace(there.fileno())
        stack.callback(_set_namespace, home.fileno())
        yield


@contextlib.contextmanager
def joined(ends: Ends, weather: Weather, seed: int) -> Iterator[Line]:
    """The link between them until the block ends; its time starts with the first packet.

    Links with the same seed lose the same moments, whatever is sent over them.
    """
    figures = (
        weather.rate_bits_per_s,
        weather.round_trip_ms * 500,
        weather.queue_bytes,
        round(weather.loss * 1_000_000),
        seed,
        weather.cut_every_ms,
        weather.silence_ms,
    )
    command = [str(native.program("limit/link.c")), ends.device, ends.server, *map(str, figures)]
    line = Line()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        cutter = threading.Thread(target=_cut, args=(running, ends, line))
        try:
            if running.stdout is None or running.stdout.readline() != "up\n":
                raise process.Failed(f"{command[0]} made no link between {ends.device} and {ends.server}")
            _address(ends)
            cutter.start()
            yield line
        finally:
            running.terminate()
            if cutter.ident is not None:
                cutter.join()


def _address(ends: Ends) -> None:
    for name in (ends.device, ends.server):
        _ip("-n", name, "link", "set", INTERFACE, "up")
        with entered(name):
            # Else the kernel drops what comes from, or goes to, a loopback address over another interface.
            Path(f"/proc/sys/net/ipv4/conf/{INTERFACE}/route_localnet").write_text("1")
    _ip("-n", ends.device, "address", "add", DEVICE_ADDRESS, "dev", INTERFACE)
    _ip("-n", ends.device, "route", "add", SERVER_ADDRESS, "dev", INTERFACE, "src", DEVICE_ADDRESS)
    _ip("-n", ends.server, "route", "add", DEVICE_ADDRESS, "dev", INTERFACE)


def _cut(running: "subprocess.Popen[str]", ends: Ends, line: Line) -> None:
    for _ in running.stdout or ():
        # The device's end first: once the server's is gone, its reset may come before the look at what was in flight.
        line.windows += windows(_killed(ends.device, SERVER_ADDRESS))
        _killed(ends.server, DEVICE_ADDRESS)


def _killed(namespace: str, other: str) -> list[str]:
    """Kill the connections to `other`; each as it was."""
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


def windows(shown: Sequence[str]) -> list[Window]:
    """Of the lines of ss about a device's connections.

    One that has heard nothing was not told where to go on, so nobody can say what its cut made the device send again.
    """
    return [_window(each) for each in shown if each.startswith("ESTAB") and " bytes_received:" in each]


def _window(shown: str) -> Window:
    """Of a line of ss: the third column is what is not confirmed, of which `notsent` was never on the link."""
    unsent = re.search(r" notsent:(\d+)", shown)
    return Window(int(shown.split()[2]), int(unsent[1]) if unsent else 0)


def _set_namespace(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace cannot be entered")


def _ip(*arguments: str) -> None:
    process.run(["ip", *arguments], COMMAND_TIMEOUT_S)
