"""The connections of the control plane: how many there may be, and which are cut because nobody reads the answer.

A client is judged by the bytes that its system acknowledges, not by silence: one that reads slowly, but steadily, may
take as long as it needs.
"""

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Protocol

from control.ports import MonotonicClock

CHECK_S = 1.0
"""How often connections are checked. The limits are tens of seconds."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What an operator allows. `connections_per_ip_max` 0 sets no limit.

    A client to which bytes are owed must take `rate_min_bytes_per_s` on average over each `rate_window_s`.
    """

    connections_max: int = 256
    connections_per_ip_max: int = 0
    rate_min_bytes_per_s: int = 1024
    rate_window_s: float = 60.0


class SocketState(Protocol):
    """Bytes that a socket still has to deliver, and all that the other side has acknowledged so far."""

    @property
    def unsent_bytes(self) -> int: ...

    @property
    def acked_bytes(self) -> int: ...


class Client(Protocol):
    """One connection."""

    @property
    def address(self) -> str:
        """The client's, or the reverse proxy's; "" if it has none."""
        ...

    @property
    def is_idle(self) -> bool:
        """It waits for the next request, and everything was sent."""
        ...

    def state(self) -> SocketState | None:
        """What is owed to the client, and what it has taken; None if that is not known."""
        ...

    def cut(self) -> None:
        """Close at once."""
        ...


@dataclass(slots=True)
class _Window:
    """What a client had taken at the time since which it is watched."""

    since_s: float
    acked_bytes: int


class Connections:
    """All connections, the longest quiet first."""

    def __init__(self, limits: ConnectionLimits, clock: MonotonicClock) -> None:
        self._limits = limits
        self._clock = clock
        self._windows: OrderedDict[Client, _Window | None] = OrderedDict()
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._windows)

    def admit(self, client: Client) -> bool:
        """Take a connection. If there is no room the longest idle one makes room; False if all are busy."""
        limits = self._limits
        if limits.connections_per_ip_max and self._by_address[client.address] >= limits.connections_per_ip_max:
            room = self._make_room(client.address)
        elif len(self._windows) >= limits.connections_max:
            room = self._make_room(None)
        else:
            room = True
        if room:
            self._windows[client] = None
            self._by_address[client.address] += 1
        return room

    def spoke(self, client: Client) -> None:
        """A request has arrived."""
        if client in self._windows:
            self._windows.move_to_end(client)

    def leave(self, client: Client) -> None:
        """The connection is gone; harmless if it never had a place."""
        if client not in self._windows:
            return
        del self._windows[client]
        self._by_address[client.address] -= 1
        if not self._by_address[client.address]:
            del self._by_address[client.address]

    def cut_all(self) -> None:
        """Close every connection at once."""
        for client in list(self._windows):
            client.cut()

    async def watch(self) -> None:
        """Check all connections about once a second, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            self.check()

    def check(self) -> None:
        """Cut the clients that took too little of what is owed to them over the last window."""
        now_s = self._clock.monotonic_s()
        for client, window in list(self._windows.items()):
            state = client.state()
            if state is None or not state.unsent_bytes:
                self._windows[client] = None
            elif window is None:
                self._windows[client] = _Window(now_s, state.acked_bytes)
            elif now_s - window.since_s >= self._limits.rate_window_s:
                least_bytes = self._limits.rate_min_bytes_per_s * (now_s - window.since_s)
                if state.acked_bytes - window.acked_bytes < least_bytes:
                    client.cut()
                else:
                    self._windows[client] = _Window(now_s, state.acked_bytes)

    def _make_room(self, address: str | None) -> bool:
        """Cut the longest idle connection, of this address if one is given. False if none is idle."""
        for client in self._windows:
            if client.is_idle and address in {None, client.address}:
                self.leave(client)
                client.cut()
                return True
        return False
