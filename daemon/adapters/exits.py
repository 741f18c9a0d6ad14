"""Exit at once when the daemon cannot continue. Acknowledged bytes are on the disk already."""

import os
import sys
from typing import NoReturn

STATUS = 1


def abandon(reason: str) -> NoReturn:
    """Print `reason` and end the process now, without waiting for threads, tasks or a disk that does not respond."""
    sys.stderr.write(f"uplinkd exits at once: {reason}\n")
    sys.stderr.flush()
    os._exit(STATUS)
