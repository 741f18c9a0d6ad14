"""A device that sends one request at a time and waits for the answer, so that each can be timed."""

import socket
from collections.abc import Sequence
from typing import Self, TypeVar

from benchmarks import process, wire
from benchmarks.uplinkd import Uplinkd
from protocol import codec, frames
from protocol.constants import FrameType

Frame = TypeVar("Frame", bound=frames.ControlFrame)

TIMEOUT_S = 60


class Dialogue:
    """One connection of one device. The handshake is complete when the block begins."""

    def __init__(self, daemon: Uplinkd, device: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", daemon.port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._input = self._socket.makefile("rb")
        self._hello = wire.hello(daemon.token(device))

    def __enter__(self) -> Self:
        self.ask(self._hello, frames.Welcome)
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        self._socket.close()

    def ask(self, request: bytes, kind: type[Frame]) -> Frame:
        """Send `request` and return the answer, skipping progress frames.

        Raises process.Failed when the answer is not of `kind`.
        """
        self._socket.sendall(request)
        while isinstance(frame := self._next(), frames.Ack | frames.Verifying) and not isinstance(frame, kind):
            pass
        if not isinstance(frame, kind):
            raise process.Failed(f"the daemon answered {frame} where {kind.__name__} was expected")
        return frame

    def store(self, name: str, content: bytes, stream: int) -> None:
        """Open a new file, send its content, and wait until that is durable."""
        self.ask(wire.opening(name, len(content), stream), frames.Opened)
        self.send(content, stream)

    def send(self, content: bytes, stream: int) -> None:
        """Send the whole content of an open file as one chunk, and wait until it is durable."""
        request = codec.encode_chunk_header(FrameType.CHUNK, stream, 0, content) + content
        while self.ask(request, frames.Ack).next_expected_byte < len(content):
            request = b""

    def store_all(self, names: Sequence[str], content: bytes) -> None:
        """Store many new files at once, and leave them open. The connection must not have opened any before."""
        files = list(enumerate(names, start=1))
        self._socket.sendall(b"".join([wire.opening(name, len(content), stream) for stream, name in files]))
        for _ in files:
            self.ask(b"", frames.Opened)
        headers = [codec.encode_chunk_header(FrameType.CHUNK, stream, 0, content) for stream, _ in files]
        self._socket.sendall(b"".join([header + content for header in headers]))
        left = len(files)
        while left:
            left -= self.ask(b"", frames.Ack).next_expected_byte == len(content)

    def _next(self) -> frames.ControlFrame:
        kind, _, _, length = codec.PREFIX.unpack(self._input.read(codec.PREFIX_BYTES))
        return codec.decode(FrameType(kind), self._input.read(length))
