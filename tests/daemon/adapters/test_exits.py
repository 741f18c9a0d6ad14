"""The process exits at once, whatever else is running."""

import subprocess
import sys

from tests.support.deadlines import DEADLINE_S

HUNG = """
import atexit, threading
from daemon.adapters.exits import abandon
atexit.register(threading.Event().wait)
threading.Thread(target=threading.Event().wait).start()
abandon("the disk does not answer")
"""


def test_neither_threads_nor_exit_handlers_are_waited_for() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == "uplinkd exits at once: the disk does not answer\n"
