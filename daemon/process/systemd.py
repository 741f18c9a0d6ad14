"""Between the daemon and systemd: sd_notify(3), the watchdog, and sockets passed at the start."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIRST_PASSED_FD = 3
"""SD_LISTEN_FDS_START: passed sockets follow standard input, output and error."""

WATCHDOG_FRACTION = 0.5
"""sd_watchdog_enabled(3) recommends half the time that systemd waits, so that one late message is forgiven."""


@dataclass(frozen=True, slots=True)
class PassedSocket:
    """One listening socket that systemd opened: its descriptor and `FileDescriptorName=` (the unit's, by default)."""

    fd: int
    name: str


class NotifyFailed(Exception):
    """A message did not reach systemd. The daemon goes on, but systemd may take it for dead."""


class Notifier:
    """Sends the daemon's state to systemd. Without NOTIFY_SOCKET, as outside systemd, every call does nothing.

    Every method raises NotifyFailed when the socket cannot be reached.
    """

    __slots__ = ("_address",)

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of Linux's abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def enabled(self) -> bool:
        """Whether systemd listens."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The start or a reload is done, and devices are served."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(status)}")

    def reloading(self, monotonic_s: float) -> None:
        """A reload has begun; `ready` must follow. `monotonic_s` is CLOCK_MONOTONIC's time."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic_s * 1_000_000)}")

    def stopping(self, status: str) -> None:
        """The drain has begun."""
        self._send("STOPPING=1", f"STATUS={_line(status)}")

    def watchdog(self) -> None:
        """The daemon is alive; call only after a check that it is."""
        self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        try:
            # Non-blocking: this runs on the event loop, and systemd's queue may be full.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as end:
                end.connect(self._address)
                end.send("\n".join(assignments).encode())
        except OSError as error:
            raise NotifyFailed(
                f"systemd did not get {assignments[0]}: {error.strerror or error}; check NOTIFY_SOCKET"
            ) from error


def watchdog_interval_s(environment: Mapping[str, str], pid: int) -> float | None:
    """Seconds between watchdog messages; None when systemd expects none from the process `pid`."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    timeout_us = environment.get("WATCHDOG_USEC", "")
    if not _number(timeout_us) or int(timeout_us) == 0:
        return None
    return int(timeout_us) / 1_000_000 * WATCHDOG_FRACTION


def listen_fds(environment: Mapping[str, str], pid: int) -> tuple[PassedSocket, ...]:
    """Sockets passed to the process `pid`, as sd_listen_fds_with_names(3); none when they are meant for another.

    A socket without a name is called "unknown", as there.
    """
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(pid) or not _number(count):
        return ()
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (int(count) - len(names))
    return tuple(PassedSocket(FIRST_PASSED_FD + index, names[index] or "unknown") for index in range(int(count)))


def passed_sockets(passed: Sequence[PassedSocket], name: str) -> list[socket.socket]:
    """The sockets that systemd passed under `name`."""
    return [socket.socket(fileno=each.fd) for each in passed if each.name == name]


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _line(text: str) -> str:
    """A line break would begin another assignment."""
    return " ".join(text.splitlines())
