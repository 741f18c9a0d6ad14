"""The real daemon as a process: started on free ports, controlled by its own command line, ended by signals."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.deadlines import PROCESS_S

PROGRAM = Path(sys.executable).parent / "uplinkd"

LOG_LINES_SHOWN = 20


class DaemonFailed(Exception):
    """The daemon or one of its commands failed. The text ends with its last output."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the daemon logged that it listens, as (host, port)."""

    listen: tuple[str, int]
    http: tuple[str, int]


class DaemonProcess:
    """`uplinkd serve` on `data_dir`. Entering waits until it is ready; leaving sends SIGTERM if it still runs.

    `settings` are environment variables without their prefix, such as {"COMMIT__CYCLE_MS": "0"}. `wrapper` is a command
    that runs the program, such as strace.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] = {}, wrapper: tuple[str, ...] = ()) -> None:
        chosen = {"DATA_DIR": str(data_dir), "LISTEN__PORT": "0", "HTTP__PORT": "0", **settings}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("UPLINKD_")}
        self._environment = inherited | {f"UPLINKD_{name}": value for name, value in chosen.items()}
        self._wrapper = wrapper
        self._log: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Addresses] | None = None
        self._addresses: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        if self._addresses is None:
            raise RuntimeError("the daemon is not ready: enter it with `async with`")
        return self._addresses

    @property
    def process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the daemon was not started: enter it with `async with`")
        return self._process

    @property
    def log(self) -> tuple[str, ...]:
        """The lines of standard error so far."""
        return tuple(self._log)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._wrapper, PROGRAM, "serve", env=self._environment, stderr=asyncio.subprocess.PIPE
        )
        self._ready = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process, self._ready))
        try:
            async with asyncio.timeout(PROCESS_S):
                self._addresses = await self._ready
        except TimeoutError:
            await self.kill()
            raise self._failure(f"it was not ready within {PROCESS_S:g} s") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            await self.stop()

    async def stop(self) -> int:
        """Send SIGTERM and return the exit status. Raises DaemonFailed when it takes too long."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(PROCESS_S):
                return await self._ended()
        except TimeoutError:
            await self.kill()
            raise self._failure(f"it did not end within {PROCESS_S:g} s of SIGTERM") from None

    async def freeze(self) -> None:
        """Send SIGSTOP and wait until no thread runs the daemon's code. A thread may still be inside a system call."""
        self._signal(signal.SIGSTOP)
        async with asyncio.timeout(PROCESS_S):
            while not _is_frozen(self.process.pid):  # noqa: ASYNC110 - the kernel sends no event when a thread has stopped
                await asyncio.sleep(0)

    def thaw(self) -> None:
        """Let the process go on after `freeze`."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def out_of_descriptors(self) -> Iterator[None]:
        """Let the daemon open nothing more during the block."""
        pid = self.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        taken = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
        lowest_free = next(number for number in range(len(taken) + 1) if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    @contextlib.asynccontextmanager
    async def unread_log(self) -> AsyncIterator[None]:
        """Read nothing of the log during the block: the pipe fills up."""
        reading = self._reading
        if reading is None or self._ready is None:
            raise RuntimeError("the daemon was not started: enter it with `async with`")
        reading.cancel()
        await asyncio.wait([reading])
        try:
            yield
        finally:
            self._reading = asyncio.create_task(self._read(self.process, self._ready))

    async def kill(self) -> int:
        """Send SIGKILL and return the exit status, which is negative."""
        self._signal(signal.SIGKILL)
        return await self._ended()

    async def command(self, *arguments: str) -> str:
        """Run `uplinkd` with the daemon's settings and return its output. Raises DaemonFailed if it fails."""
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *arguments,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PROCESS_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise self._failure(f"uplinkd {' '.join(arguments)} took longer than {PROCESS_S:g} s") from None
        if process.returncode != 0:
            output = (err or out).decode(errors="replace").strip()
            raise self._failure(f"uplinkd {' '.join(arguments)} gave {process.returncode}: {output}")
        return out.decode()

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal. The process's own method would poll the exit status, and take it from the waiting task."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def _ended(self) -> int:
        status = await self.process.wait()
        if self._reading is not None:
            await self._reading
        return status

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Future[Addresses]) -> None:
        if process.stderr is None:
            raise RuntimeError("standard error must be a pipe")
        async for line in process.stderr:
            self._log.append(line.decode(errors="replace").rstrip())
            if not ready.done():
                addresses = _ready_addresses(self._log[-1])
                if addresses is not None:
                    ready.set_result(addresses)
        if not ready.done():
            ready.set_exception(self._failure("it ended before it was ready"))

    def _failure(self, what: str) -> DaemonFailed:
        return DaemonFailed("\n  ".join([what, *self._log[-LOG_LINES_SHOWN:]]))


def _is_frozen(pid: int) -> bool:
    """Whether every thread has stopped, or waits for the disk and stops before it returns from there; see proc(5)."""
    stats = [(thread / "stat").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.rpartition(")")[2].split()[0] in "TtD" for stat in stats)


def _ready_addresses(line: str) -> Addresses | None:
    """The addresses in a log line of the event `ready`; None for any other line."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.get("event") != "ready":
        return None
    return Addresses(_address(event["listen"]), _address(event["http"]))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
