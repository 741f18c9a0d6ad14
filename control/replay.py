"""The same request again for another range, answered without the way through the framework.

A client that reads a file in ranges sends one request over and over in which nothing changes but the range's digits.
What has been parsed, routed and answered once is repeated for REPLAY_S: the bytes received must be the same but for
those digits, so nothing passes here that did not pass there; the token is verified anew each time; and the bytes are
those of a file that storage has open, which it has not once the file is deleted. All else goes the usual way.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiohttp import hdrs, web

from control.access import PRINCIPAL, bearer_token
from control.byte_ranges import OFFSET_DIGITS_MAX
from control.errors import REQUEST_ID
from control.middleware import Observer, describe, route_of
from control.payload import SMALL_BYTES
from control.ports import Authenticator, Contents, Refused

REPLAY_S = 1.0
"""How long an answer is repeated: its Date is as old, and one request a second costs nothing among thousands."""

_SPAN = re.compile(r"bytes=[0-9]+-[0-9]+", re.ASCII)

_UNIT_BYTES = len("bytes=")

_VARYING = frozenset({hdrs.CONTENT_LENGTH, hdrs.CONTENT_RANGE, "X-Request-Id"})
"""The fields of an answer that its range or its turn decide."""

Answer = tuple[bytes, bytearray]
"""Header section and body."""


@dataclass(frozen=True, slots=True)
class Repeatable:
    """Left in a request by a route that answers any small range of `file_id`, of `size` bytes, in the same way."""

    file_id: int
    size: int


@dataclass(frozen=True, slots=True)
class Source:
    """Left in a request by its connection: the bytes received that are this request alone, and who takes a replay."""

    received: bytes
    adopt: "Callable[[Replay], None]"


REPEATABLE = web.RequestKey("repeatable", Repeatable)
SOURCE = web.RequestKey("source", Source)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What stays the same: the request's bytes about the digits, and the header section of the answer."""

    before: bytes
    after: bytes
    head: bytes


class Replays:
    """Makes replays of answers."""

    def __init__(self, authenticator: Authenticator, contents: Contents, observer: Observer) -> None:
        self.authenticator = authenticator
        self.contents = contents
        self.observer = observer

    async def learn(self, request: web.Request, response: web.StreamResponse) -> None:
        """Signal when an answer's headers are complete: hand the connection a replay if the answer can be repeated."""
        source, repeatable = request.get(SOURCE), request.get(REPEATABLE)
        if source is None or repeatable is None or hdrs.UPGRADE in request.headers:
            return
        if response.status != 206 or not response.keep_alive:
            return
        pattern = _pattern(source.received, request, response)
        if pattern is not None:
            source.adopt(Replay(self, pattern, repeatable, request))


class Replay:
    """An answer that can be given again for other ranges."""

    def __init__(self, replays: Replays, pattern: _Pattern, repeatable: Repeatable, request: web.Request) -> None:
        self._replays = replays
        self._pattern = pattern
        self._repeatable = repeatable
        self._token = bearer_token(request)
        self._principal = request[PRINCIPAL]
        self._is_own_id = request[REQUEST_ID] == request.headers.get("X-Request-Id")
        self._like = describe(request, route=route_of(request), status=206, duration_s=0.0, sent_bytes=0)
        self._repeats = 0
        self._duration_s = 0.0
        self._sent_bytes = 0

    def answer(self, received: bytes) -> Answer | None:
        """The answer, if `received` is the request again, is granted, and the bytes asked for are in memory."""
        span = self._span(received)
        if span is None:
            return None
        start, end = span
        replays, count = self._replays, end - start
        started_s = replays.observer.clock.monotonic_s()
        try:
            if replays.authenticator.authenticate(self._token) != self._principal:
                return None
        except Refused:
            return None
        body = replays.contents.read_cached(self._repeatable.file_id, start, count)
        if body is None:
            return None
        request_id = self._observe(count, replays.observer.clock.monotonic_s() - started_s)
        head = b"%bContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\nX-Request-Id: %b\r\n\r\n" % (
            *(self._pattern.head, count, start, end - 1, self._repeatable.size),
            request_id.encode(),
        )
        return head, body

    def end(self) -> None:
        """Log all answers that were given as one exchange."""
        if self._repeats:
            told = replace(self._like, duration_s=self._duration_s, sent_bytes=self._sent_bytes, repeats=self._repeats)
            self._replays.observer.log.exchange(told)

    def _span(self, received: bytes) -> tuple[int, int] | None:
        before, after = self._pattern.before, self._pattern.after
        if not (received.startswith(before) and received.endswith(after)):
            return None
        first, _, last = received[len(before) : -len(after)].partition(b"-")
        if not (first.isdigit() and last.isdigit()) or max(len(first), len(last)) > OFFSET_DIGITS_MAX:
            return None
        start, end = int(first), int(last) + 1
        is_small = start < end <= self._repeatable.size and end - start <= SMALL_BYTES
        return (start, end) if is_small else None

    def _observe(self, count: int, duration_s: float) -> str:
        """Count one answer; its request id."""
        self._repeats += 1
        self._duration_s += duration_s
        self._sent_bytes += count
        like = self._like
        self._replays.observer.http_metrics.observe(replace(like, duration_s=duration_s, sent_bytes=count))
        return like.request_id if self._is_own_id else f"{like.request_id}.{self._repeats}"


def _pattern(received: bytes, request: web.Request, response: web.StreamResponse) -> _Pattern | None:
    asked = request.headers.getall(hdrs.RANGE)
    if len(asked) != 1 or not _SPAN.fullmatch(asked[0]):
        return None
    value = asked[0].encode()
    if received.count(value) != 1 or not received.startswith(f"GET {request.raw_path} HTTP/1.1\r\n".encode()):
        return None
    at = received.index(value)
    fields = "".join(f"{name}: {text}\r\n" for name, text in response.headers.items() if name not in _VARYING)
    head = f"HTTP/1.1 206 {response.reason}\r\n{fields}".encode()
    return _Pattern(received[: at + _UNIT_BYTES], received[at + len(value) :], head)
