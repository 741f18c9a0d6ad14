"""A stream for log lines that never makes its writer wait: a thread writes them out.

Whoever reads the daemon's standard error may stall, and a full pipe would stop the event loop in the middle of a line.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

QUEUE_CHARS_MAX = 1024 * 1024
"""Characters that may wait: some thousand lines, which a reader that is only slow catches up with in a moment."""


class LogStream:
    """What logging's StreamHandler needs of a stream. Lines that find no room are dropped and counted.

    `describe_dropped` makes the line that says how many were dropped, in the format of the others.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()
        self._chars = 0
        self._untold = 0
        self._is_writing = False
        self.dropped = 0
        self.describe_dropped: Callable[[int], str] = lambda _: ""
        # A daemon thread, so that a reader that never comes back cannot keep the process from ending.
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def isatty(self) -> bool:
        """Whether the lines go to a terminal."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Queue a line, or drop it if there is no room."""
        with self._changed:
            if self._chars + len(text) > QUEUE_CHARS_MAX:
                self.dropped += 1
                self._untold += 1
                return len(text)
            if self._untold:
                self._put(self.describe_dropped(self._untold))
                self._untold = 0
            self._put(text)
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Lines go out as soon as the reader takes them; see `finish`."""

    def finish(self, timeout_s: float) -> bool:
        """Wait until all lines are out. False if the reader did not take them in this time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._is_writing, timeout_s)

    def _put(self, text: str) -> None:
        self._lines.append(text)
        self._chars += len(text)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                text = self._lines.popleft()
                self._chars -= len(text)
                self._is_writing = True
            # Nobody is left to be told that nobody reads the log.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
