"""Carries a command out in the running daemon or, if there is none, here, with the data directory locked."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from importlib.metadata import version
from typing import TypeAlias

from daemon.adapters.clock import Clock, SystemClock
from daemon.admin.commands import Commands, perform
from daemon.admin.messages import AddDevice, IssueToken, Request, Result
from daemon.admin.results import CommandFailed
from daemon.admin.unix_socket import NoDaemon, ask
from daemon.catalog.interface import CatalogFailed, CatalogNewer
from daemon.core import DirectoryLocked, open_core, system_machine
from daemon.identity.keys import KeysInvalid
from daemon.settings import Settings
from daemon.telemetry.logs import configure
from protocol.errors import ErrorCode

PATIENCE_S = 5.0
"""About how long a starting or stopping daemon, or another command, holds the lock without answering."""

RETRY_S = 0.1

Offline: TypeAlias = Callable[[Settings], AbstractAsyncContextManager[Commands]]
"""Locks the data directory and opens what is in it. Makes it if it is missing.

Raises DirectoryLocked, CatalogNewer, CatalogFailed, KeysInvalid and OSError.
"""


@asynccontextmanager
async def offline(settings: Settings) -> AsyncIterator[Commands]:
    """The commands, on a data directory that no daemon owns. See Offline."""
    logs = configure("warning", "console", sys.stderr, SystemClock().wall_ms)
    try:
        async with open_core(settings, system_machine(), logs.logger()) as core:
            machine = core.machine
            yield Commands(core, core.file_verifier, machine.clock, machine.entropy, None, version("uplinkd"))
    finally:
        logs.close()


async def operate(
    settings: Settings, request: Request, offline: Offline, uid: int, clock: Clock, patience_s: float = PATIENCE_S
) -> AsyncGenerator[Result, None]:
    """Carry out the request and yield its results. `uid` is the effective user id.

    Raises CommandFailed; DaemonSilent when the daemon does not answer; DirectoryLocked when the data directory is
    locked for `patience_s` by a process that does not answer.
    """
    deadline_s = clock.monotonic_s() + patience_s
    while True:
        try:
            async with aclosing(ask(settings.admin_socket_path, request)) as results:
                async for result in results:
                    yield result
        except NoDaemon:
            _check_directory(settings, request, uid)
        else:
            return
        try:
            async with aclosing(_held(settings, request, offline)) as results:
                async for result in results:
                    yield result
        except DirectoryLocked:
            if clock.monotonic_s() >= deadline_s:
                raise
        else:
            return
        await asyncio.sleep(RETRY_S)


async def _held(settings: Settings, request: Request, offline: Offline) -> AsyncGenerator[Result, None]:
    try:
        async with offline(settings) as commands, aclosing(perform(commands, request)) as results:
            async for result in results:
                yield result
    except (CatalogNewer, CatalogFailed, KeysInvalid, OSError) as error:
        raise CommandFailed(ErrorCode.UNAVAILABLE, str(error)) from error


def _check_directory(settings: Settings, request: Request, uid: int) -> None:
    """Refuse to make a directory for a mistyped path, or files in it that the directory's owner could not use."""
    directory = settings.data_dir
    try:
        owner = directory.stat().st_uid
    except FileNotFoundError as error:
        if isinstance(request, AddDevice | IssueToken):
            return
        raise CommandFailed(
            ErrorCode.RESOURCE_UNKNOWN, f"there is no data directory {directory}: check data_dir, --config and --set"
        ) from error
    except OSError as error:
        raise CommandFailed(
            ErrorCode.FORBIDDEN, f"data directory {directory}: {error.strerror}; run this as its owner"
        ) from error
    if owner != uid:
        raise CommandFailed(
            ErrorCode.FORBIDDEN,
            f"no daemon runs, and data directory {directory} belongs to user {owner}, not to {uid}: "
            f"run this as its owner (sudo -u '#{owner}' …), or start the daemon",
        )
