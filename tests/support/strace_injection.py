"""Disk faults in a running daemon: strace makes chosen system calls on one file fail."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.systemd_machine import Unable

ATTACH_S = 15

DETACH_S = 1
"""After this time, strace is killed: it waits forever for the threads of a process that it has killed."""


@asynccontextmanager
async def injected(pid: int, path: Path, calls: str, fault: str) -> AsyncIterator[None]:
    """While entered, `calls` of the process on `path` get a `fault`, as strace's -e inject has it; both are counted
    from now on and by thread. Raises Unable.
    """
    program = shutil.which("strace")
    if program is None:
        raise Unable("strace is not installed: apt install strace")
    rules = ("-e", f"trace={calls}", "-e", f"inject={calls}:{fault}", "-e", "signal=none")
    tracer = await asyncio.create_subprocess_exec(
        *(program, "-f", "-o", "/dev/null", "-P", path, *rules, "-p", str(pid)), stderr=asyncio.subprocess.PIPE
    )
    if tracer.stderr is None:
        raise RuntimeError("standard error must be a pipe")
    try:
        async with asyncio.timeout(ATTACH_S):
            output = b""
            while b" attached" not in output:
                line = await tracer.stderr.readline()
                if not line:
                    raise Unable(f"strace cannot attach to a process: {output.decode(errors='replace').strip()}")
                output += line
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            tracer.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(DETACH_S):
                await tracer.wait()
        except TimeoutError:
            tracer.kill()
            await tracer.wait()
