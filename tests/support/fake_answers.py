"""The answers of a correct server that keeps files in memory."""

import hashlib
import itertools
from dataclasses import dataclass, field, replace

from protocol import frames
from protocol.checksum import crc32c
from protocol.constants import AUTHORITY_UNLIMITED_S, NEVER_S, SIZE_UNKNOWN, Disposition, UploadState
from protocol.errors import ErrorCode
from protocol.events import (
    ChunksReceived,
    FinishRequested,
    HelloReceived,
    OpenRequested,
    ProofReceived,
    QueryReceived,
    ServerEvent,
    TokenOffered,
)
from protocol.handshake import prove
from protocol.ranges import RangeSet, Span
from protocol.server import ServerConnection


@dataclass
class Stored:
    """The server's file under one name."""

    id: int
    size: int
    tag: bytes | None
    data: bytearray = field(default_factory=bytearray)
    ranges: RangeSet = field(default_factory=RangeSet)
    state: UploadState = UploadState.RECEIVING
    opens: list[frames.Open] = field(default_factory=list)

    def write(self, event: ChunksReceived) -> None:
        data = b"".join(event.data)
        self.data.extend(bytes(max(event.end - len(self.data), 0)))
        for gap in self.ranges.missing(event.start, event.end):
            part = data[gap.start - event.start : gap.end - event.start]
            self.data[gap.start : gap.end] = part
            self.ranges.add(gap.start, gap.end, crc32c(part))

    @property
    def beyond(self) -> tuple[Span, ...]:
        return tuple(Span(each.start, each.end) for each in self.ranges.beyond_next())

    @property
    def crc32c(self) -> int:
        return self.ranges.prefix_crc32c()


class Archive:
    """The server's files, kept across connections."""

    def __init__(self) -> None:
        self.files: dict[str, Stored] = {}
        self.tokens: list[str] = []
        self.finishes: list[frames.Finish] = []
        self.device_key = b""
        self.stored_bytes = 0
        self._ids = itertools.count(100)

    def create(self, request: frames.Open) -> Stored:
        stored = Stored(next(self._ids), request.size, request.tag)
        self.files[request.name] = stored
        return stored


class Answers:
    """The answers on one connection: WELCOME as in `welcome`, after `challenge` if there is one."""

    def __init__(
        self, archive: Archive, connection: ServerConnection, welcome: frames.Welcome, challenge: bytes | None
    ) -> None:
        self._archive = archive
        self._connection = connection
        self._granted = welcome
        self._challenge = challenge
        self._challenge_sent = b""
        self._uploads: dict[int, Stored] = {}
        self.hello: HelloReceived | None = None

    def answer(self, event: ServerEvent) -> None:
        """Answer an event."""
        match event:
            case HelloReceived():
                self.hello = event
                if self._challenge is not None:
                    self._challenge_sent = self._connection.challenge(self._challenge)
                else:
                    self._welcome(event.hello)
            case ProofReceived(proof):
                assert self.hello is not None
                if proof == prove(self._archive.device_key, self.hello.raw, self._challenge_sent):
                    self._welcome(self.hello.hello)
                else:
                    self._connection.fail(ErrorCode.UNAUTHENTICATED, "the proof is wrong")
            case OpenRequested(stream, request):
                self._open(stream, request)
            case ChunksReceived():
                self._store(event)
            case FinishRequested(stream, finish):
                self._finish(stream, finish)
            case TokenOffered(token):
                self._archive.tokens.append(token)
                self._connection.refreshed(AUTHORITY_UNLIMITED_S)
            case QueryReceived(stream, name):
                self._connection.send(stream, self._status(name))

    def _welcome(self, hello: frames.Hello) -> None:
        features = self._granted.features & hello.features
        self._connection.welcome(replace(self._granted, features=features))

    def _open(self, stream: int, request: frames.Open) -> None:
        stored = self._archive.files.get(request.name)
        if stored is not None and request.disposition is not Disposition.REPLACE:
            if (stored.size, stored.tag) != (request.size, request.tag):
                self._connection.fail_stream(stream, ErrorCode.CONTENT_CHANGED, "another size or tag")
                return
        elif stored is None and request.disposition is Disposition.RESUME_ONLY:
            self._connection.fail_stream(stream, ErrorCode.NOT_FOUND, "there is no such file")
            return
        else:
            stored = self._archive.create(request)
        stored.opens.append(request)
        self._uploads[stream] = stored
        is_complete = stored.state is UploadState.COMPLETE
        opened = frames.Opened(
            stored.id,
            stored.state,
            UploadState.NONE,
            stored.ranges.next_expected_byte,
            NEVER_S,
            crc32c=stored.crc32c if is_complete else None,
            ranges=stored.beyond or None,
            sha256=hashlib.sha256(stored.data).digest() if is_complete else None,
        )
        self._connection.opened(stream, opened, request.size)

    def _store(self, event: ChunksReceived) -> None:
        stored = self._uploads[event.stream]
        stored.write(event)
        self._archive.stored_bytes += event.end - event.start
        self._connection.acknowledge(event.stream, stored.ranges.next_expected_byte, stored.beyond, event.charged_bytes)

    def _finish(self, stream: int, finish: frames.Finish) -> None:
        stored = self._uploads[stream]
        missing = stored.ranges.missing(0, finish.size)
        sha256 = hashlib.sha256(stored.data).digest()
        if missing:
            self._connection.refuse_range(stream, missing[0], ErrorCode.INCOMPLETE, 0)
        elif finish.crc32c not in (None, stored.crc32c) or finish.sha256 not in (None, sha256):
            stored.state = UploadState.REJECTED
            del self._archive.files[stored.opens[-1].name]
            self._connection.fail_stream(stream, ErrorCode.DIGEST_MISMATCH, "the digest does not match")
        else:
            stored.state = UploadState.COMPLETE
            self._archive.finishes.append(finish)
            given = sha256 if finish.sha256 is not None else None
            self._connection.finished(stream, frames.Finished(stored.id, finish.size, stored.crc32c, given))

    def _status(self, name: str) -> frames.Status:
        stored = self._archive.files.get(name)
        if stored is None:
            return frames.Status(0, UploadState.NONE, 0, SIZE_UNKNOWN)
        next_expected_byte, beyond = stored.ranges.next_expected_byte, stored.beyond or None
        return frames.Status(stored.id, stored.state, next_expected_byte, stored.size, ranges=beyond)
