"""Many connections in one thread, each of which sends what it was given, at its own pace."""

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.fairness.stage import HOSTILE_ADDRESS

TICK_S = 0.05

READ_BYTES = 1 << 16

Work = Callable[[threading.Event], None]


@dataclass(frozen=True, slots=True)
class Manner:
    """How each of `count` connections to `port` behaves.

    It sends `first`, which gets the connection's serial number, then `drip` each `drip_s`. It reads all that comes, or
    at most `read_bytes` a tick. A connection that ends, or is older than `lives_s`, is made again after `again_s`.
    """

    port: int
    count: int
    first: Callable[[int], bytes] = lambda _: b""
    drip: bytes = b""
    drip_s: float = 1
    read_bytes: int | None = None
    receive_buffer_bytes: int | None = None
    again_s: float | None = 0.5
    lives_s: float = float("inf")


class _Connection:
    def __init__(self, manner: Manner, serial: int, now: float) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if manner.receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, manner.receive_buffer_bytes)
        self.socket.bind((HOSTILE_ADDRESS, 0))
        self.output = memoryview(manner.first(serial))
        self.drip_at_s = now + manner.drip_s
        self.ends_at_s = now + manner.lives_s
        failure = self.socket.connect_ex(("127.0.0.1", manner.port))
        if failure not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise OSError(failure, "cannot connect")


class Crowd:
    """The connections of one manner. `run` plays them until the event is set, and then closes them."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._selector = selectors.DefaultSelector()
        self._connections: set[_Connection] = set()
        self._missing_since_s = [0.0] * manner.count
        self.made = 0
        self.ended = 0
        self.read_bytes = 0

    def run(self, over: threading.Event) -> None:
        with self._selector:
            while not over.is_set():
                now = time.monotonic()
                self._connect(now)
                if self._manner.read_bytes is None:
                    self._read_all()
                over.wait(TICK_S)
                for connection in list(self._connections):
                    self._go_on(connection, time.monotonic())
            for connection in list(self._connections):
                self._close(connection)

    @property
    def open(self) -> int:
        return len(self._connections)

    def _connect(self, now: float) -> None:
        while self._missing_since_s and self._missing_since_s[0] <= now:
            self._missing_since_s.pop(0)
            try:
                connection = _Connection(self._manner, self.made, now)
            except OSError:
                self._missing_since_s.append(now + 1)
                continue
            self.made += 1
            self._connections.add(connection)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _read_all(self) -> None:
        for key, _ in self._selector.select(0):
            self._read(key.data, READ_BYTES)

    def _go_on(self, connection: _Connection, now: float) -> None:
        if now >= connection.ends_at_s:
            self._close(connection)
            return
        if self._manner.drip and now >= connection.drip_at_s and not connection.output:
            connection.drip_at_s += self._manner.drip_s
            connection.output = memoryview(self._manner.drip)
        if connection.output and not self._write(connection):
            return
        if self._manner.read_bytes:
            self._read(connection, self._manner.read_bytes)

    def _write(self, connection: _Connection) -> bool:
        try:
            connection.output = connection.output[connection.socket.send(connection.output) :]
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return True
            self._close(connection)
            return False
        return True

    def _read(self, connection: _Connection, count: int) -> None:
        try:
            data = connection.socket.recv(count)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.read_bytes += len(data)
        if not data:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        self.ended += 1
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if self._manner.again_s is not None:
            self._missing_since_s.append(time.monotonic() + self._manner.again_s)


@contextlib.contextmanager
def working(*works: Work) -> Iterator[None]:
    """Run each of `works` on a thread during the block. Raises what they raise, once the block is over."""
    over = threading.Event()
    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(work, over) for work in works]
        try:
            yield
        finally:
            over.set()
        for each in running:
            each.result()
