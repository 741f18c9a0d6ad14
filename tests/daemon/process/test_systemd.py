"""sd_notify, the watchdog and socket activation, against real sockets."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.process.systemd import (
    Notifier,
    NotifyFailed,
    PassedSocket,
    listen_fds,
    passed_sockets,
    watchdog_interval_s,
)
from tests.support.deadlines import DEADLINE_S


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.settimeout(DEADLINE_S)
        end.bind(str(tmp_path / "notify"))
        yield end


@pytest.fixture
def notifier(systemd: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": systemd.getsockname()})


class TestNotifier:
    def test_ready_carries_a_status(self, systemd: socket.socket, notifier: Notifier) -> None:
        notifier.ready("serving on 7710")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=serving on 7710"

    def test_status_is_sent(self, systemd: socket.socket, notifier: Notifier) -> None:
        notifier.status("3 connections")
        assert systemd.recv(1000) == b"STATUS=3 connections"

    def test_a_line_break_in_a_status_does_not_start_an_assignment(
        self, systemd: socket.socket, notifier: Notifier
    ) -> None:
        notifier.status("all\nwell\r\nREADY=1")
        assert systemd.recv(1000) == b"STATUS=all well READY=1"

    def test_stopping_is_sent(self, systemd: socket.socket, notifier: Notifier) -> None:
        notifier.stopping("draining")
        assert systemd.recv(1000) == b"STOPPING=1\nSTATUS=draining"

    def test_reloading_carries_the_monotonic_time_in_microseconds(
        self, systemd: socket.socket, notifier: Notifier
    ) -> None:
        notifier.reloading(12.5)
        assert systemd.recv(1000) == b"RELOADING=1\nMONOTONIC_USEC=12500000"

    def test_a_watchdog_notification_is_sent(self, systemd: socket.socket, notifier: Notifier) -> None:
        notifier.watchdog()
        assert systemd.recv(1000) == b"WATCHDOG=1"

    def test_an_address_with_an_at_sign_is_abstract(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.settimeout(DEADLINE_S)
            end.bind("")  # the kernel picks an abstract name
            name = end.getsockname()
            Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode()}).watchdog()
            assert end.recv(1000) == b"WATCHDOG=1"

    @pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
    def test_without_a_socket_nothing_happens(self, environment: dict[str, str]) -> None:
        notifier = Notifier(environment)
        assert not notifier.enabled
        notifier.ready("x")
        notifier.watchdog()

    def test_with_a_socket_it_is_enabled(self, notifier: Notifier) -> None:
        assert notifier.enabled

    @pytest.mark.parametrize("name", ["none", "x" * 300])
    def test_an_unreachable_socket_is_named(self, tmp_path: Path, name: str) -> None:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / name)})
        with pytest.raises(NotifyFailed, match=r"did not get READY=1: .*; check NOTIFY_SOCKET"):
            notifier.ready("x")

    def test_a_full_queue_never_blocks(self, systemd: socket.socket, notifier: Notifier) -> None:
        with pytest.raises(NotifyFailed):
            while True:
                notifier.watchdog()
        assert systemd.recv(1000) == b"WATCHDOG=1"


class TestWatchdog:
    def test_the_interval_is_half_the_timeout(self) -> None:
        assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, pid=7) == 15.0

    def test_without_a_pid_any_process_is_meant(self) -> None:
        assert watchdog_interval_s({"WATCHDOG_USEC": "2000000"}, pid=7) == 1.0

    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "soon"},
            {"WATCHDOG_USEC": "-5"},
            {"WATCHDOG_USEC": "²"},
            {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"},
        ],
    )
    def test_an_absent_or_invalid_watchdog_setting_turns_it_off(self, environment: dict[str, str]) -> None:
        assert watchdog_interval_s(environment, pid=7) is None


class TestPassedSockets:
    def test_descriptors_start_at_three_and_have_names(self) -> None:
        environment = {"LISTEN_FDS": "2", "LISTEN_PID": "7", "LISTEN_FDNAMES": "devices:http"}
        assert listen_fds(environment, pid=7) == (PassedSocket(3, "devices"), PassedSocket(4, "http"))

    def test_sockets_without_a_name_are_unknown(self) -> None:
        environment = {"LISTEN_FDS": "3", "LISTEN_PID": "7", "LISTEN_FDNAMES": ":b"}
        assert [passed.name for passed in listen_fds(environment, pid=7)] == ["unknown", "b", "unknown"]

    def test_sockets_need_no_names(self) -> None:
        assert listen_fds({"LISTEN_FDS": "1", "LISTEN_PID": "7"}, pid=7) == (PassedSocket(3, "unknown"),)

    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"LISTEN_FDS": "1"},
            {"LISTEN_FDS": "1", "LISTEN_PID": "8"},
            {"LISTEN_FDS": "0", "LISTEN_PID": "7"},
            {"LISTEN_FDS": "many", "LISTEN_PID": "7"},
            {"LISTEN_PID": "7"},
        ],
    )
    def test_absent_or_foreign_sockets_are_ignored(self, environment: dict[str, str]) -> None:
        assert listen_fds(environment, pid=7) == ()


def test_sockets_are_found_by_their_name() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        fd = listener.detach()
    (found,) = passed_sockets([PassedSocket(fd, "devices"), PassedSocket(99, "http")], "devices")
    with found:
        assert found.getsockname()[0] == "127.0.0.1"
