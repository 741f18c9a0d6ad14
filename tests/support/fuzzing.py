"""Frames that nobody should send, and sessions with one bit flipped, against a real daemon."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from protocol import codec, frames
from protocol.checksum import crc32c
from protocol.constants import OFFSET_MAX, SIZE_UNKNOWN, CredentialKind, Disposition, FrameType, TlvType
from protocol.handshake import device_key, prove
from tests.support.deadlines import DEADLINE_S
from tests.support.raw_device import ALL_FEATURES, chunk, field, lying_chunk, open_request, raw, secret_hello

READ_BYTES = 1 << 16

NUMBERS = (0, 1, 2, 7, 8, 255, 256, 65535, 2**31, 2**32 - 1, OFFSET_MAX, OFFSET_MAX + 1, SIZE_UNKNOWN)
"""Where integers of one size or another end."""

TEXTS = ("a", "log", "ä" * 100, "a" * 255, "a" * 256, "..", "a/../b", "\0", "\udcff", "", "a\nb", "/")

CONTENT = bytes(range(96))


Value = TypeVar("Value")


class FrameMaker:
    """Random frames, most of them nearly valid: a few of `streams` uploads with a few names."""

    def __init__(self, rng: random.Random, tokens: tuple[str, ...], names: tuple[str, ...]) -> None:
        self._rng = rng
        self._tokens = tokens
        self._names = names
        self._stream = 0

    def session(self) -> bytes:
        """A handshake, most often valid, and frames behind it."""
        rng = self._rng
        hello = frames.Hello(CredentialKind.TOKEN, ALL_FEATURES, 4096, ack_ranges_max=4, token=self._tokens[0])
        first = rng.choices((lambda: codec.encode(hello), self._hello, self._unproven), (16, 3, 1))[0]()
        return first + b"".join(self.frame() for _ in range(rng.randrange(1, 40)))

    def frame(self) -> bytes:
        """A frame of a device, valid or spoilt."""
        made = self._rng.choices(
            (self._open, self._chunk, self._finish, self._control, self._made_up, self._hello), (4, 8, 2, 3, 1, 0.2)
        )[0]()
        return self._spoilt(made) if self._rng.random() < 0.05 else made

    def _open(self) -> bytes:
        rng = self._rng
        self._stream += rng.choices((1, 0, 40_000), (30, 1, 1))[0]
        request = frames.Open(
            rng.choice(list(Disposition)),
            self._number(len(CONTENT), SIZE_UNKNOWN),
            self._text(),
            tag=self._maybe(rng.randbytes(rng.choice((0, 4, 32, 33)))),
            sha256=self._maybe(rng.randbytes(32)),
            crc32c=self._maybe(rng.getrandbits(32)),
            content_type=self._maybe(rng.choice(TEXTS)),
            external_id=self._maybe("x" * rng.choice((1, 1100))),
        )
        return codec.encode(request, self._stream & 0xFFFF)

    def _chunk(self) -> bytes:
        rng, kind = self._rng, self._rng.choice(list(codec.CHUNK_HEADERS))
        start, count = rng.randrange(len(CONTENT)), rng.choice((1, 1, 16, 300))
        data = CONTENT[start : start + count]
        if rng.random() < 0.9:
            return chunk(self._any_stream(), start, data, kind)
        limit = 2**32 - 1 if kind is FrameType.CHUNK_COMPACT else 2**64 - 1
        first, last = (min(rng.choice(NUMBERS), limit) for _ in range(2))
        return lying_chunk(self._any_stream(), first, last, data[: rng.choice((0, count))], kind)

    def _finish(self) -> bytes:
        rng = self._rng
        crc = self._maybe(rng.choice((crc32c(CONTENT), 0)))
        request = frames.Finish(self._number(len(CONTENT)), crc32c=crc, sha256=self._maybe(rng.randbytes(32)))
        return codec.encode(request, self._any_stream())

    def _control(self) -> bytes:
        rng = self._rng
        made: tuple[tuple[frames.ControlFrame, int], ...] = (
            (frames.Abort(), self._any_stream()),
            (frames.Query(self._text()), rng.randrange(65536)),
            (frames.Ping(rng.getrandbits(32)), rng.choice((0, 0, 0, 1))),
            (frames.Pong(rng.getrandbits(32)), 0),
            (frames.Refresh(rng.choice((*self._tokens, "", "a.b.c", "\udcff"))), 0),
            (frames.Proof(rng.randbytes(32)), 0),
            (frames.Ack(rng.choice(NUMBERS)), self._any_stream()),
            (frames.Goaway(rng.randrange(65536), 1), 0),
        )
        frame, stream = rng.choices(made, (2, 4, 4, 2, 1, 0.2, 0.2, 0.2))[0]
        return codec.encode(frame, stream)

    def _hello(self) -> bytes:
        rng = self._rng
        hello = frames.Hello(
            rng.choice((0, 1, 1, 2, 2, 255)),
            rng.getrandbits(32),
            self._number(64, 4096, limit=2**32 - 1),
            version_min=rng.choice((0, 1, 2)),
            version_max=rng.choice((1, 1, 255)),
            ack_ranges_max=rng.randrange(256),
            token=self._maybe(rng.choice((*self._tokens, *TEXTS))),
            tenant=self._maybe(rng.choice(("default", *TEXTS))),
            device=self._maybe(rng.choice(("cam", *TEXTS))),
            nonce=self._maybe(rng.randbytes(32)),
            agent=self._maybe("fuzz" * rng.choice((1, 16))),
            last_end=self._maybe(rng.randrange(65536)),
        )
        return codec.encode(hello)

    def _unproven(self) -> bytes:
        """A device that gives names of all kinds, and a proof that is none."""
        device, tenant = self._rng.choice(TEXTS), self._maybe(self._rng.choice(TEXTS))
        return codec.encode(secret_hello(device, tenant)) + codec.encode(frames.Proof(self._rng.randbytes(32)))

    def _made_up(self) -> bytes:
        """Any type and fields, the right length in the prefix."""
        rng = self._rng
        fields = (field(rng.choice((*TlvType, rng.randrange(256))), rng.randbytes(rng.randrange(40))) for _ in range(3))
        body = rng.randbytes(rng.choice((0, 4, 8, 9, 32))) + b"".join(fields)
        return raw(
            rng.choice((*FrameType, rng.randrange(256))), body, self._any_stream(), flags=rng.choice((0, 0, 0, 1))
        )

    def _spoilt(self, frame: bytes) -> bytes:
        """One bit flipped, or the end cut off."""
        if self._rng.random() < 0.2:
            return frame[: self._rng.randrange(len(frame))]
        return flipped(frame, self._rng.randrange(8 * len(frame)))

    def _any_stream(self) -> int:
        return self._rng.choice((self._stream, self._stream, self._rng.randint(0, self._stream + 1), 65535)) & 0xFFFF

    def _number(self, *usual: int, limit: int = 2**64 - 1) -> int:
        return min(self._rng.choice((*usual * 8, *NUMBERS)), limit)

    def _text(self) -> str:
        return self._rng.choice((*self._names * 6, *TEXTS))

    def _maybe(self, value: Value) -> Value | None:
        return value if self._rng.random() < 0.25 else None


@dataclass(frozen=True, slots=True)
class Session:
    """What a device says: `first`, and `rest` once the server has answered that with CHALLENGE, or at once."""

    first: bytes
    rest: Callable[[bytes], bytes]

    @property
    def bits(self) -> range:
        """Every bit that can be flipped. The answer's length does not depend on the challenge."""
        return range(8 * (len(self.first) + len(self.rest(bytes(40)))))


def token_session(token: str, name: str) -> Session:
    """HELLO with a token, and an upload in all three forms of chunk."""
    hello = frames.Hello(CredentialKind.TOKEN, ALL_FEATURES, 4096, ack_ranges_max=4, token=token)
    return Session(codec.encode(hello) + _upload(name), lambda _: b"")


def secret_session(device: str, secret: bytes, name: str) -> Session:
    """HELLO of a device with a secret, its PROOF, and the same upload."""
    hello = codec.encode(secret_hello(device))

    def rest(challenge: bytes) -> bytes:
        proof = prove(device_key(secret), hello, challenge)
        return codec.encode(frames.Proof(proof)) + _upload(name)

    return Session(hello, rest)


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def play(address: tuple[str, int], session: Session, bit: int | None = None) -> bytes:
    """Say everything, with one bit flipped, then end the sending side. Returns the answers.

    Raises TimeoutError when the server does not end the connection.
    """
    first, later = session.first, bit
    if bit is not None and bit < 8 * len(first):
        first, later = flipped(first, bit), None
    elif bit is not None:
        later = bit - 8 * len(first)
    reader, writer = await asyncio.open_connection(*address)
    answers = b""
    try:
        async with asyncio.timeout(DEADLINE_S):
            # The server may end the connection at any moment.
            with contextlib.suppress(ConnectionError):
                writer.write(first)
                if session.rest(bytes(40)):
                    answers = await reader.read(READ_BYTES)
                    rest = session.rest(answers)
                    writer.write(rest if later is None else flipped(rest, later))
                writer.write_eof()
                while data := await reader.read(READ_BYTES):
                    answers += data
    finally:
        writer.transport.abort()
    return answers


async def play_all(address: tuple[str, int], sessions: Iterable[tuple[Session, int | None]], at_once: int) -> int:
    """Play sessions, `at_once` at a time. Returns their number."""
    waiting, count = iter(sessions), 0

    async def one_after_the_other(source: Iterator[tuple[Session, int | None]]) -> None:
        nonlocal count
        for session, bit in source:
            await play(address, session, bit)
            count += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other(waiting))
    return count


def _upload(name: str) -> bytes:
    third = len(CONTENT) // 3
    return (
        codec.encode(open_request(name, len(CONTENT)), 1)
        + chunk(1, 0, CONTENT[:8])
        + chunk(1, 8, CONTENT[8:third], FrameType.CHUNK_COMPACT)
        + chunk(1, third, CONTENT[third:], FrameType.CHUNK_CRC32C)
        + codec.encode(frames.Query(name), 7)
        + codec.encode(frames.Ping(7))
        + codec.encode(frames.Finish(len(CONTENT), crc32c=crc32c(CONTENT)), 1)
    )
