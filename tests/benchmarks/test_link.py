"""A link between two namespaces carries bytes, cuts connections, and cleans up."""

import socket
import time
from collections.abc import Iterator

import pytest

from benchmarks import link
from benchmarks.link import Conditions, Ends
from tests.support.deadlines import DEADLINE_S

pytestmark = pytest.mark.skipif(link.unavailable() is not None, reason=f"no link: {link.unavailable()}")


GOOD = Conditions(100_000_000, 2, queue_bytes=256 * 1024, loss=0.0, cut_every_ms=0, silence_ms=0)
CUT = Conditions(100_000_000, 2, queue_bytes=256 * 1024, loss=0.0, cut_every_ms=300, silence_ms=20)
DEAD = Conditions(100_000_000, 2, queue_bytes=256 * 1024, loss=1.0, cut_every_ms=0, silence_ms=0)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with link.namespaces("test") as made:
        yield made


def connected(ends: Ends) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection, the device's first. The server listens on loopback only."""
    with link.entered(ends.server):
        listener = socket.create_server(("127.0.0.1", 0))
    with listener, link.entered(ends.device):
        listener.settimeout(DEADLINE_S)
        device = socket.create_connection((link.SERVER_ADDRESS, listener.getsockname()[1]), timeout=DEADLINE_S)
        server, _ = listener.accept()
        server.settimeout(DEADLINE_S)
        return device, server


def test_the_link_carries_bytes_to_the_servers_loopback(ends: Ends) -> None:
    with link.joined(ends, GOOD, 1) as line:
        device, server = connected(ends)
        with device, server:
            device.sendall(b"there")
            assert server.recv(5, socket.MSG_WAITALL) == b"there"
            server.sendall(b"and back")
            assert device.recv(8, socket.MSG_WAITALL) == b"and back"
    assert line.windows == []


def test_a_cut_resets_both_ends_and_records_what_was_in_flight(ends: Ends) -> None:
    with link.joined(ends, CUT, 1) as line:
        device, server = connected(ends)
        with device, server:
            server.sendall(b"x")
            assert device.recv(1) == b"x"
            for end in (device, server):
                with pytest.raises(ConnectionError):
                    end.recv(1)
        deadline = time.monotonic() + DEADLINE_S
        while not line.windows and time.monotonic() < deadline:
            time.sleep(0.001)
    assert [window.bytes for window in line.windows[:1]] == [0]


def test_a_connection_that_received_nothing_has_no_window() -> None:
    ends = "127.0.0.1:40000 127.0.0.1:7710 cubic rto:204 bytes_sent:90"
    heard = f"ESTAB 0 4096 {ends} bytes_acked:50 bytes_received:70 segs_out:3 notsent:1024"
    assert link.windows([f"ESTAB 0 90 {ends}", f"SYN-SENT 0 1 {ends}", heard]) == [link.Window(4096, 1024)]


def test_nothing_connects_over_a_link_that_loses_everything(ends: Ends) -> None:
    with link.joined(ends, DEAD, 1), link.entered(ends.server):
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, link.entered(ends.device), pytest.raises(TimeoutError):
            socket.create_connection((link.SERVER_ADDRESS, listener.getsockname()[1]), timeout=0.2)


def test_a_namespace_can_be_entered_and_is_removed_afterwards() -> None:
    with link.namespaces("gone") as ends, link.entered(ends.server):
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with pytest.raises(FileNotFoundError), link.entered(ends.server):
        pass
