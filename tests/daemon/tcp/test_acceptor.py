"""Listening sockets: what they inherit, and accepting from them while it works and while it does not."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import pytest

from daemon.tcp.acceptor import ACCEPT_BATCH, Acceptor, SockAddress, bind, hang_up, keep_alive
from tests.support.device_site import on_uvloop
from tests.support.waiting import until


class Listener(socket.socket):
    """A listening socket whose next `accept`s raise `failures`."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, SockAddress]:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


class Bench:
    """An acceptor on one listener, and what it says."""

    def __init__(self, *failures: int, pause_s: float = 0) -> None:
        self.links: list[socket.socket] = []
        self.on_first: Callable[[], object] = lambda: None
        """Called at the next turn of the event loop after the first link."""
        self.failed: list[int | None] = []
        self.acceptor = Acceptor(lambda error, _: self.failed.append(error.errno), pause_s)
        self.listener = Listener()
        self.listener.failures = list(failures)
        self.listener.bind(("127.0.0.1", 0))
        self.acceptor.listen(self.listener, 2 * ACCEPT_BATCH, self._accepted)
        self.clients: list[socket.socket] = []

    def connect(self) -> None:
        """One more link, which the kernel accepts at once."""
        self.clients.append(socket.create_connection(self.acceptor.addresses[0]))

    def _accepted(self, link: socket.socket, _: SockAddress) -> None:
        if not self.links:
            asyncio.get_running_loop().call_soon(self.on_first)
        self.links.append(link)

    def close(self) -> None:
        self.acceptor.close()
        for each in (*self.links, *self.clients):
            each.close()


@on_uvloop
class TestAcceptor:
    async def test_links_are_accepted_in_batches(self) -> None:
        bench = Bench()
        for _ in range(ACCEPT_BATCH + 1):
            bench.connect()
        at_a_turn: list[int] = []
        bench.on_first = lambda: at_a_turn.append(len(bench.links))
        await until(lambda: len(bench.links) == ACCEPT_BATCH + 1)
        assert at_a_turn == [ACCEPT_BATCH]
        bench.close()

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
    async def test_a_shortage_is_told_once_and_links_wait_until_it_is_over(self, number: int) -> None:
        bench = Bench(number, number, number)
        bench.connect()
        await until(lambda: bench.links)
        assert bench.failed == [number]
        bench.listener.failures = [number]
        bench.connect()
        await until(lambda: len(bench.links) == 2)
        assert bench.failed == [number, number]
        bench.close()

    async def test_the_failure_of_one_link_is_not_the_listeners(self) -> None:
        bench = Bench(errno.ECONNABORTED)
        bench.connect()
        await until(lambda: bench.links)
        assert bench.failed == []
        bench.close()

    async def test_it_may_be_closed_during_a_pause(self) -> None:
        bench = Bench(errno.EMFILE, pause_s=0.01)
        bench.connect()
        await until(lambda: bench.failed)
        bench.close()
        await asyncio.sleep(0.02)
        assert bench.links == []
        assert bench.acceptor.addresses == []


def test_a_link_that_is_hung_up_is_at_its_end_for_both() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        link, _ = listener.accept()
        hang_up(link)
        assert client.recv(1) == link.recv(1) == b""
        client.close()
        link.close()
        # The peer, or the transport, may have been faster.
        hang_up(link)


class TestListening:
    def test_what_cannot_be_bound_is_named(self) -> None:
        with bind("127.0.0.1", 0, 1)[0] as taken:
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already") as failed:
                bind("127.0.0.1", port, 1)
        assert failed.value.errno == errno.EADDRINUSE

    def test_every_address_of_the_name(self) -> None:
        sockets = bind("::1", 0, 1) + bind("127.0.0.1", 0, 1)
        assert [each.family for each in sockets] == [socket.AF_INET6, socket.AF_INET]
        assert sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        for each in sockets:
            each.close()

    @pytest.mark.parametrize(
        ("keepalive_s", "user_timeout_s", "expected"),
        [(60, 30, (1, 60, 20, 3, 30_000)), (1, 0, (1, 1, 1, 3, 0)), (0, 5, (0, None, None, None, 5000))],
    )
    def test_what_accepted_connections_inherit(
        self, keepalive_s: float, user_timeout_s: float, expected: tuple[int | None, ...]
    ) -> None:
        options = (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        )
        with socket.socket() as listener:
            keep_alive(listener, keepalive_s, user_timeout_s)
            for option, value in zip(options, expected, strict=True):
                assert value is None or listener.getsockopt(*option) == value
