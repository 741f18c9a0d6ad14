"""Open files of uploads, read and sent on one lane, in order."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path

from daemon.adapters.clock import Clock
from daemon.adapters.files import FileSystem
from daemon.adapters.threads import Lane
from daemon.storage.local.calls import Call, ask, call

SEND_BYTES = 1 << 20
"""Sent by one system call. On a disk of 100 MB/s other readers wait 10 ms for it."""

SEND_TURN_S = 0.001
"""After this time a send gives way to other readers. A download was 0.73 times as fast when each MiB was queued by
itself, and 1.03 times as fast with turns of 2 ms."""


class Readers:
    """Opens files on `lane`.

    While `is_writing`, a send gives way after each piece, so as not to take the processor from receiving.
    """

    def __init__(self, files: FileSystem, lane: Lane[Call], clock: Clock, is_writing: Callable[[], bool]) -> None:
        self._files = files
        self._lane = lane
        self._clock = clock
        self._is_writing = is_writing

    async def open(self, path: Path) -> "FileReading":
        """Open a file for reading. Raises OSError, FileNotFoundError where there is none."""

        def run() -> tuple[int, int]:
            fd = self._files.open_to_read(path)
            try:
                return fd, self._files.size(fd)
            except OSError:
                self._files.close(fd)
                raise

        fd, size = await call(self._lane, run, lambda opened: self._close(opened[0]))
        return FileReading(self._files, self._lane, self._clock, self._is_writing, fd, size)

    def _close(self, fd: int) -> None:
        # Nobody awaits this: the event loop reports a failure.
        ask(self._lane, partial(self._files.close, fd))


class FileReading:
    """One open file: `interface.Sendable`."""

    __slots__ = ("_clock", "_fd", "_files", "_is_writing", "_lane", "size")

    def __init__(
        self, files: FileSystem, lane: Lane[Call], clock: Clock, is_writing: Callable[[], bool], fd: int, size: int
    ) -> None:
        self._files = files
        self._lane = lane
        self._clock = clock
        self._is_writing = is_writing
        self._fd = fd
        self.size = size

    async def read(self, offset: int, count: int) -> bytes:
        return await call(self._lane, partial(self._files.read, self._fd, count, offset))

    async def send(self, socket_fd: int, offset: int, count: int) -> AsyncGenerator[int, None]:
        # A duplicate, since the number could mean another socket while the lane is at work.
        own = self._files.duplicate(socket_fd)
        try:
            while count:
                turn_s = 0.0 if self._is_writing() else SEND_TURN_S
                sent = await call(self._lane, partial(self._send_turn, own, offset, count, turn_s))
                if sent is None:
                    await _writable(own)
                    continue
                if not sent:
                    return
                offset, count = offset + sent, count - sent
                yield sent
        finally:
            # On the lane, behind a turn that may be under way there for a caller that was cancelled.
            ask(self._lane, partial(self._files.close, own))

    async def close(self) -> None:
        await call(self._lane, partial(self._files.close, self._fd))

    def _send_turn(self, socket_fd: int, offset: int, count: int, turn_s: float) -> int | None:
        """FileSystem.send, repeated while the socket takes more, for one turn. On the lane."""
        until_s = self._clock.monotonic_s() + turn_s
        sent = 0
        while sent < count:
            step = self._files.send(self._fd, socket_fd, min(count - sent, SEND_BYTES), offset + sent)
            if not step:
                return sent or step
            sent += step
            if self._clock.monotonic_s() >= until_s:
                break
        return sent


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(fd)
