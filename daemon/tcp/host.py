"""What a connection needs of the server that it belongs to."""

from collections.abc import Coroutine
from typing import Protocol, TypeVar

from daemon.adapters.clock import Clock
from daemon.tcp.opening import Opening
from daemon.tcp.session import Session
from daemon.tcp.stream import TurnedAway
from daemon.tcp.turns import Turns
from daemon.telemetry.metrics import CloseReason

Connection_contra = TypeVar("Connection_contra", contravariant=True)


class Host(Protocol[Connection_contra]):
    """The server that a connection belongs to."""

    @property
    def clock(self) -> Clock: ...

    @property
    def turns(self) -> Turns:
        """How devices share the event loop."""
        ...

    @property
    def handshake_timeout_s(self) -> float:
        """How long the TLS handshake behind a PROXY header may take. The sweep ends it earlier."""
        ...

    @property
    def outgoing_bytes_max(self) -> int:
        """Answers that may wait for a device to read them, before it is read no more itself."""
        ...

    def identified(self, connection: Connection_contra, opening: Opening) -> None:
        """The PROXY header has named the device."""
        ...

    def opened(self, connection: Connection_contra, opening: Opening) -> Session:
        """A session for the device, which may send its HELLO; it has failed already when the server drains."""
        ...

    def admit(self, connection: Connection_contra, tenant: str, device: str) -> TurnedAway | None:
        """Give the device, which has proven who it is, a place; or say why there is none."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run work of the connection in the background."""
        ...

    def disconnected(self, connection: Connection_contra, reason: CloseReason) -> None:
        """The connection is over."""
        ...
