"""A hand-driven device: it sends any bytes, well-formed or not, and reads the answers."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from protocol import codec, frames
from protocol.constants import SIZE_UNKNOWN, CredentialKind, Disposition, Feature, FrameType
from protocol.handshake import device_key, prove
from tests.support.deadlines import DEADLINE_S

Frame = TypeVar("Frame", bound=frames.ControlFrame)


ALL_FEATURES = Feature.CHUNK_COMPACT | Feature.CHUNK_CRC32C | Feature.SHA256

NONCE = bytes(range(32))


def token_hello(token: str) -> frames.Hello:
    """HELLO with a token."""
    return frames.Hello(CredentialKind.TOKEN, ALL_FEATURES, 4096, ack_ranges_max=8, token=token)


def secret_hello(device: str, tenant: str | None = None) -> frames.Hello:
    """HELLO of a device that will prove its secret."""
    return frames.Hello(
        CredentialKind.DEVICE_SECRET, ALL_FEATURES, 4096, ack_ranges_max=8, tenant=tenant, device=device, nonce=NONCE
    )


def open_request(name: str, size: int = SIZE_UNKNOWN, tag: bytes | None = None) -> frames.Open:
    """OPEN that resumes or creates."""
    return frames.Open(Disposition.RESUME_OR_CREATE, size, name, tag=tag)


def chunk(stream: int, start: int, data: bytes, kind: FrameType = FrameType.CHUNK) -> bytes:
    """An intact chunk frame."""
    return codec.encode_chunk_header(kind, stream, start, data) + data


def lying_chunk(stream: int, start: int, end: int, data: bytes, kind: FrameType = FrameType.CHUNK) -> bytes:
    """A chunk frame whose header says [start, end], both inclusive, whatever its data; its checksum is 0."""
    header = codec.CHUNK_HEADERS[kind].pack(start, end, 0)
    return raw(kind, header + data, stream)


def raw(kind: int, body: bytes, stream: int = 0, *, flags: int = 0, length: int | None = None) -> bytes:
    """A frame of any type and body; `length` replaces the true length in its prefix."""
    return codec.PREFIX.pack(kind, flags, stream, len(body) if length is None else length) + body


def field(kind: int, value: bytes, length: int | None = None) -> bytes:
    """A TLV; `length` as in `raw`."""
    return bytes([kind]) + (len(value) if length is None else length).to_bytes(2, "big") + value


def whole_upload(token: str, data: bytes = b"abc") -> bytes:
    """HELLO, OPEN, a chunk and FINISH, pipelined."""
    return (
        codec.encode(token_hello(token))
        + codec.encode(open_request("log"), 1)
        + chunk(1, 0, data)
        + codec.encode(frames.Finish(len(data)), 1)
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """One frame of the server, and its bytes as received."""

    stream: int
    frame: frames.ControlFrame
    raw: bytes


class Wire:
    """One connection, made by `connect`. It answers PING by itself, and closes on leaving."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.said: list[bytes] = []
        """Every well-formed frame, as sent."""
        self.flooded_bytes = 0

    @classmethod
    async def connect(
        cls, address: tuple[str, int], *, tls: ssl.SSLContext | None = None, local: tuple[str, int] | None = None
    ) -> Self:
        """A new connection on which nothing was sent; `local` binds this end."""
        return cls(*await asyncio.open_connection(*address, ssl=tls, local_addr=local))

    @classmethod
    async def admitted(cls, address: tuple[str, int], token: str, *, tls: ssl.SSLContext | None = None) -> Self:
        """A connection after WELCOME."""
        wire = await cls.connect(address, tls=tls)
        wire.say(token_hello(token))
        await wire.hear(frames.Welcome)
        return wire

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The connection's TLS, None without it."""
        tls_object: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return tls_object

    async def secure(self, tls: ssl.SSLContext) -> None:
        """Start TLS."""
        await self._writer.start_tls(tls, server_hostname="127.0.0.1")

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        self._writer.write(data)

    def say(self, frame: frames.ControlFrame, stream: int = 0) -> bytes:
        """Send a well-formed frame and return its bytes."""
        sent = codec.encode(frame, stream)
        self.said.append(sent)
        self.send(sent)
        return sent

    async def sent(self) -> None:
        """Wait until the kernel has everything that was sent."""
        await self._writer.drain()
        await asyncio.sleep(0)

    def end(self) -> None:
        """Shut down the sending side."""
        self._writer.write_eof()

    def hang_up(self) -> None:
        """Close without sending anything."""
        self._writer.transport.abort()

    async def next(self) -> Reply:
        """The next frame of any type. Raises IncompleteReadError once the server has ended the connection."""
        async with asyncio.timeout(DEADLINE_S):
            prefix = await self._reader.readexactly(codec.PREFIX_BYTES)
            kind, _, stream, length = codec.PREFIX.unpack(prefix)
            body = await self._reader.readexactly(length)
            return Reply(stream, codec.decode(FrameType(kind), body), prefix + body)

    async def reply(self) -> Reply:
        """The next frame other than PING, which is answered. Raises like `next`."""
        while isinstance(ping := (reply := await self.next()).frame, frames.Ping):
            self.say(frames.Pong(ping.token))
        return reply

    async def hear(self, kind: type[Frame], stream: int = 0) -> Frame:
        """The next frame, which must be of this type and on this stream."""
        reply = await self.reply()
        assert isinstance(reply.frame, kind), f"{reply.frame} where {kind.__name__} was expected"
        assert reply.stream == stream, f"{reply.frame} on stream {reply.stream} instead of {stream}"
        return reply.frame

    async def ended(self) -> None:
        """Wait until the server has ended its side, without another frame."""
        async with asyncio.timeout(DEADLINE_S):
            assert await self._reader.read() == b""

    async def dropped(self) -> None:
        """Wait until the server has dropped the connection without sending anything."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                assert await self._reader.read() == b""
            except ConnectionResetError:
                return

    async def gone(self) -> None:
        """Wait, without a deadline, until the server has ended the connection in whatever way."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(1024):
                pass

    async def flood(self, data: bytes) -> None:
        """Send `data` until the server closes. Raises ConnectionError."""
        while True:
            self.flooded_bytes += len(data)
            self.send(data)
            await self._writer.drain()

    async def prove(self, device: str, secret: bytes, meant: frames.Hello | None = None) -> Reply:
        """Prove a secret and return the server's answer. The proof covers `meant` instead of the HELLO that is sent."""
        hello = self.say(secret_hello(device))
        challenge = await self.reply()
        proven = hello if meant is None else codec.encode(meant)
        self.say(frames.Proof(prove(device_key(secret), proven, challenge.raw)))
        return await self.reply()

    async def open(self, stream: int, request: frames.Open) -> frames.Opened:
        """Send OPEN, which must succeed."""
        self.say(request, stream)
        return await self.hear(frames.Opened, stream)

    async def upload(self, stream: int, start: int, data: bytes) -> None:
        """Send a chunk and wait until it is durable. No other frame may arrive."""
        self.send(chunk(stream, start, data))
        while (await self.hear(frames.Ack, stream)).next_expected_byte < start + len(data):
            pass

    async def drip(self, data: Callable[[], bytes], interval_s: float) -> Reply:
        """Send `data()` at this interval until the server answers, and return the answer."""
        answer = asyncio.create_task(self.reply())
        try:
            while not answer.done():
                self.send(data())
                await asyncio.wait({answer}, timeout=interval_s)
            return answer.result()
        finally:
            answer.cancel()


def changed(hello: frames.Hello, **changes: object) -> frames.Hello:
    """HELLO with other fields."""
    return replace(hello, **changes)  # type: ignore[arg-type]  # each value fits the field it names


async def heard_all(wire: Wire) -> None:
    """Read the answers to `whole_upload`."""
    await wire.hear(frames.Welcome)
    await wire.hear(frames.Opened, 1)
    while not isinstance(reply := (await wire.reply()).frame, frames.Finished):
        assert isinstance(reply, frames.Ack)
