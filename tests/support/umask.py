"""The umask belongs to the whole process: what a test leaves behind, all later tests of its worker have."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def umask_set(mode: int) -> Iterator[None]:
    """Another umask, and afterwards the former one, whatever the body has set."""
    before = os.umask(mode)
    try:
        yield
    finally:
        os.umask(before)


def current_umask() -> int:
    """Read without a change, which a thread that creates a file at this moment would meet."""
    status = Path("/proc/self/status").read_text()
    [umask] = [line.split()[1] for line in status.splitlines() if line.startswith("Umask:")]
    return int(umask, 8)
