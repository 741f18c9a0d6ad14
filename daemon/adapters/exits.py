"""Exit at once when the daemon cannot continue. Acknowledged bytes are on the disk already."""

import os
import select
import sys
from typing import NoReturn

STATUS = 1

PATIENCE_S = 1.0
"""How long the last message waits for a reader of standard error that has stalled."""


def abandon(reason: str) -> NoReturn:
    """Print `reason` and end the process now, without waiting for threads, tasks or a disk that does not respond."""
    descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
    # Not through sys.stderr: the thread that writes the log may hold its lock for ever.
    _, ready, _ = select.select([], [descriptor], [], PATIENCE_S)
    if ready:
        os.write(descriptor, f"uplinkd exits at once: {reason}\n".encode())
    leave(STATUS)


def leave(status: int) -> NoReturn:
    """End the process now. Nobody waits for a thread that is stuck in a write."""
    os._exit(status)
