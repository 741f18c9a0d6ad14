"""Checks, in strace's log of a daemon, that every promise came after its syncs. PROTOCOL.md §7.

strace stops a thread before and after each call, and writes a line at each stop. So if one call ended before another
began, the trace has their lines in this order.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from protocol import codec, frames
from protocol.constants import FrameType
from protocol.ranges import Span

PREFIX_BYTES = 8

SENDING = frozenset({"write", "writev", "sendmsg", "sendto"})
WRITING = frozenset({"pwrite64", "pwritev", "pwritev2"})
SYNCING = frozenset({"fdatasync", "fsync"})
SYNCING_ALL = "syncfs"
TRACED = ",".join(sorted(SENDING | WRITING | SYNCING | {SYNCING_ALL, "openat"}))

WRAPPER = ("strace", "-D", "-f", "-yy", "-xx", "-s", "16384", "-e", f"trace={TRACED}", "--seccomp-bpf", "-o")
"""The command before the trace's path and the program. With -D, the program stays the caller's child, for signals."""

_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<answer>(?P<result>-?\d+).*)")
_UNFINISHED = " <unfinished ...>"
_TARGET = re.compile(r"\d+<(?P<path>(?:\\x[0-9a-f]{2})+)|\d+<(?P<socket>\w+:\[[^\]]*\])")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OFFSET = re.compile(r", (\d+)(?:, 0)?$")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that returned. `begun` and `ended` are line numbers; `target` is its file or socket."""

    name: str
    begun: int
    ended: int
    target: str
    arguments: str
    result: int

    @property
    def data(self) -> bytes:
        """What it wrote."""
        return b"".join(_bytes(text) for text in _TEXT.findall(self.arguments))[: max(self.result, 0)]

    @property
    def span(self) -> Span:
        """The range of the file that it wrote."""
        match = _OFFSET.search(self.arguments)
        if match is None:
            raise ValueError(f"{self.name} has no offset: {self.arguments[-80:]}")
        return Span(int(match[1]), int(match[1]) + self.result)


def calls(lines: Iterable[str]) -> Iterator[Call]:
    """The calls of all threads, in the order of their ends."""
    unfinished: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        if (parts := _LINE.match(line)) is None:
            raise ValueError(f"not a line of strace -f: {line[:80]}")
        thread, text, begun = parts["thread"], parts["rest"], number
        if text.endswith(_UNFINISHED):
            unfinished[thread] = number, text.removesuffix(_UNFINISHED)
            continue
        if resumed := _RESUMED.match(text):
            begun, first = unfinished.pop(thread)
            text = first + resumed["rest"]
        if call := _CALL.match(text):
            yield _call(call, begun, number)


def _call(match: re.Match[str], begun: int, ended: int) -> Call:
    name, arguments = match["name"], match["arguments"]
    described = _TARGET.match(match["answer"] if name == "openat" else arguments)
    path, socket = described.group("path", "socket") if described else (None, None)
    target = _bytes(path).decode() if path else socket or ""
    return Call(name, begun, ended, target, arguments, int(match["result"]))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(slots=True)
class _File:
    """An upload's data file. A range is durable from the line on which the sync that covers it ended."""

    created: int | None = None
    named: int | None = None
    written: list[tuple[Span, int]] = field(default_factory=list)
    durable: list[tuple[Span, int]] = field(default_factory=list)

    def sync(self, sync: Call) -> None:
        covered = [(span, sync.ended) for span, ended in self.written if ended < sync.begun]
        self.written = [(span, ended) for span, ended in self.written if ended >= sync.begun]
        self.durable += covered

    def name(self, sync: Call) -> None:
        if self.named is None and self.created is not None and self.created < sync.begun:
            self.named = sync.ended

    def durable_since(self, wanted: Span) -> int | None:
        """The line since which the whole range is durable; None if part of it is not."""
        reached, since = wanted.start, 0
        for span, line in sorted(self.durable):
            if span.start > reached or reached >= wanted.end:
                break
            if span.end > reached:
                reached, since = span.end, max(since, line)
        return since if reached >= wanted.end else None


@dataclass(slots=True)
class _Stream:
    """The daemon's output on one socket, and the upload of each stream."""

    sent: bytearray = field(default_factory=bytearray)
    uploads: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The number of promises checked, and those that came too early, with what was missing."""

    promises: int
    violations: tuple[str, ...]


class Checker:
    """Checks every promise on a device's socket against earlier syncs. `port` is the daemon's port for devices."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self._files_dir = f"{data_dir}/files/"
        self._wal = f"{data_dir}/catalog.sqlite-wal"
        self._socket = f":{port}->"
        self._files: defaultdict[str, _File] = defaultdict(_File)
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)
        self._wal_written: list[Call] = []
        self._wal_synced: list[tuple[int, bytes]] = []
        self._promises = 0
        self._violations: list[str] = []

    def check(self, trace: Iterable[Call]) -> Verdict:
        """Check all promises in the trace."""
        # A promise counts from the start of its call, everything else from the end of its call.
        ordered = sorted(trace, key=lambda call: call.begun if self._is_sending(call) else call.ended)
        for call in ordered:
            if self._is_sending(call):
                self._send(call)
            elif call.result >= 0:
                self._happen(call)
        return Verdict(self._promises, tuple(self._violations))

    def _is_sending(self, call: Call) -> bool:
        return call.name in SENDING and call.target.startswith("TCP") and self._socket in call.target

    def _happen(self, call: Call) -> None:
        if call.target == self._wal:
            if call.name in WRITING:
                self._wal_written.append(call)
            elif call.name in SYNCING:
                self._wal_synced += [(each.begun, each.data) for each in self._wal_written if each.ended < call.begun]
                self._wal_written = [each for each in self._wal_written if each.ended >= call.begun]
        elif call.name == SYNCING_ALL:
            for file in self._files.values():
                file.sync(call)
                file.name(call)
        elif call.target.startswith(self._files_dir):
            self._happen_to_files(call)

    def _happen_to_files(self, call: Call) -> None:
        if call.name == "openat" and "O_CREAT" in call.arguments:
            self._files[call.target].created = call.ended
        elif call.name in WRITING:
            self._files[call.target].written.append((call.span, call.ended))
        elif call.name == "fdatasync":
            self._files[call.target].sync(call)
        elif call.name == "fsync":
            for path, file in self._files.items():
                if path.startswith(f"{call.target}/"):
                    file.name(call)

    def _send(self, call: Call) -> None:
        stream = self._streams[call.target]
        stream.sent += call.data
        while len(stream.sent) >= PREFIX_BYTES:
            frame_bytes = PREFIX_BYTES + int.from_bytes(stream.sent[4:PREFIX_BYTES], "big")
            if len(stream.sent) < frame_bytes:
                return
            raw = bytes(stream.sent[:frame_bytes])
            del stream.sent[:frame_bytes]
            self._judge(stream, int.from_bytes(raw[2:4], "big"), FrameType(raw[0]), raw[PREFIX_BYTES:])

    def _judge(self, stream: _Stream, number: int, kind: FrameType, body: bytes) -> None:
        if kind not in {FrameType.OPENED, FrameType.ACK, FrameType.FINISHED}:
            return
        match codec.decode(kind, body):
            case frames.Opened(upload_id=upload_id, next_expected_byte=reached, ranges=ranges):
                stream.uploads[number] = upload_id
                self._hold(kind, upload_id, (Span(0, reached), *(ranges or ())))
            case frames.Ack(reached, ranges):
                self._hold(kind, stream.uploads[number], (Span(0, reached), *(ranges or ())))
            case frames.Finished(upload_id=upload_id, size=size, crc32c=crc):
                self._hold(kind, upload_id, (Span(0, size),), _completed(size, crc))

    def _hold(self, kind: FrameType, upload_id: int, promised: Iterable[Span], record: bytes = b"") -> None:
        file = self._files[f"{self._files_dir}{upload_id % 256:02x}/{upload_id:016x}"]
        for span in promised:
            if span.start < span.end:
                self._promises += 1
                promise = f"{kind.name} of bytes {span.start}-{span.end - 1} of upload {upload_id:016x}"
                self._violations += [f"{promise}: {missing}" for missing in self._missing(file, span, record)]

    def _missing(self, file: _File, span: Span, record: bytes) -> Iterator[str]:
        since = file.durable_since(span)
        if since is None:
            yield "not written, or its file not synced"
        if file.named is None:
            yield "its directory not synced"
        recorded = [begun for begun, data in self._wal_synced if (record or _range(span)) in data]
        if not recorded:
            yield "its record not synced"
        elif min(recorded) < max(since or 0, file.named or 0):
            yield "its record written before the bytes, or their name, were durable"


def _range(span: Span) -> bytes:
    """A range as the catalog stores it, without the CRC32C."""
    return span.start.to_bytes(8, "big") + span.end.to_bytes(8, "big")


def _completed(size: int, crc: int) -> bytes:
    """Bytes that only the row of a complete upload has: its one range, the stored bytes, and finally the CRC32C."""
    return _range(Span(0, size)) + crc.to_bytes(4, "big") + _integer(size) + _integer(crc)


def _integer(value: int) -> bytes:
    """An integer above 1 as in an SQLite record, in the smallest possible width."""
    width = next(width for width in (1, 2, 3, 4, 6, 8) if value < 1 << 8 * width - 1)
    return value.to_bytes(width, "big")
