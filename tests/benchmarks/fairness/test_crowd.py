"""Crowds of connections, against a server that the test plays."""

import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.fairness.crowd import Crowd, Manner, working
from benchmarks.fairness.stage import HOSTILE_ADDRESS
from tests.support.deadlines import DEADLINE_S


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE_S)
        yield listening


def accepted(server: socket.socket) -> socket.socket:
    connection, (address, _) = server.accept()
    connection.settimeout(DEADLINE_S)
    assert address == HOSTILE_ADDRESS
    return connection


def received(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data))
    return data


def test_each_connection_sends_its_first_bytes_and_then_drips(server: socket.socket) -> None:
    manner = Manner(server.getsockname()[1], 2, lambda serial: b"first%d" % serial, drip=b".", drip_s=0.01)
    with working(Crowd(manner).run), accepted(server) as one, accepted(server) as other:
        assert {received(each, 8) for each in (one, other)} == {b"first0..", b"first1.."}


def test_a_connection_that_ends_is_made_again(server: socket.socket) -> None:
    crowd = Crowd(Manner(server.getsockname()[1], 1, again_s=0))
    with working(crowd.run):
        accepted(server).close()
        accepted(server).close()
    assert crowd.made >= 2


def test_a_connection_ends_at_its_age(server: socket.socket) -> None:
    manner = Manner(server.getsockname()[1], 1, again_s=None, lives_s=0.01)
    with working(Crowd(manner).run), accepted(server) as connection:
        assert connection.recv(1) == b""


def test_connections_are_closed_at_the_end(server: socket.socket) -> None:
    crowd = Crowd(Manner(server.getsockname()[1], 3))
    with working(crowd.run):
        connections = [accepted(server) for _ in range(3)]
    assert crowd.open == 0
    for connection in connections:
        with connection:
            assert connection.recv(1) == b""


def test_what_a_worker_raises_is_raised_after_the_block() -> None:
    def fail(_: threading.Event) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), working(fail):
        pass
