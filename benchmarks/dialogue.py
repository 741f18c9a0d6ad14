"""A device that does one thing at a time and waits for the answer, so that the time of each can be taken."""

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
    """One connection of one device. Entered after WELCOME."""

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

    def ask(self, said: bytes, kind: type[Frame]) -> Frame:
        """Say something; the next frame but for progress, which must be of this kind. Raises process.Failed."""
        self._socket.sendall(said)
        while isinstance(frame := self._next(), frames.Ack | frames.Verifying) and not isinstance(frame, kind):
            pass
        if not isinstance(frame, kind):
            raise process.Failed(f"the daemon answered {frame} where {kind.__name__} was expected")
        return frame

    def store(self, name: str, content: bytes, stream: int) -> None:
        """Open a new file and send all its bytes; return when they are durable."""
        self.ask(wire.opening(name, len(content), stream), frames.Opened)
        self.send(content, stream)

    def send(self, content: bytes, stream: int) -> None:
        """All bytes of a file that is open, in one chunk; return when they are durable."""
        said = codec.encode_chunk_header(FrameType.CHUNK, stream, 0, content) + content
        while self.ask(said, frames.Ack).next_expected_byte < len(content):
            said = b""

    def store_all(self, names: Sequence[str], content: bytes) -> None:
        """The same for many new files at once, on a connection that has opened none; each stays open."""
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
