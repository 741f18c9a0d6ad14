"""Both ends of the admin socket: a Unix socket through which local operators command the running daemon.

Two checks decide who may connect: the socket's mode, 0600, and the peer's user id. A connection carries one request.
"""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

from structlog.stdlib import BoundLogger

from daemon.admin.commands import Commands, perform
from daemon.admin.messages import (
    LINE_BYTES_MAX,
    Answer,
    CommandRefused,
    EndOfResults,
    Greeting,
    Request,
    Result,
    read_answer,
    read_request,
    write_answer,
    write_request,
)
from daemon.admin.results import CommandFailed
from daemon.tasks import Tasks
from protocol.errors import ErrorCode

MODE = 0o600

PATH_BYTES_MAX = 107
"""Linux's limit for the path of a Unix socket, sun_path, without its final NUL."""

CONNECTIONS_MAX = 16
"""Enough for operators and their scripts. More at once would be a mistake, and each costs a buffer."""

REQUEST_TIMEOUT_S = 10.0
"""Clients send their one line immediately."""

GREETING_TIMEOUT_S = 5.0
"""Far longer than any pause of a working event loop, which greets within milliseconds."""

ROOT_UID = 0

_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user and group."""


class NoDaemon(Exception):
    """No process listens at the admin socket."""


class DaemonSilent(Exception):
    """A process holds the admin socket but does not answer."""


class AdminServer:
    """The daemon's end. Call `start` once, then `close`."""

    def __init__(self, path: Path, commands: Commands, log: BoundLogger) -> None:
        self._path = path
        self._commands = commands
        self._log = log
        self._inode = 0
        self._uid = ROOT_UID
        self._server: asyncio.Server | None = None
        self._tasks = Tasks(lambda error: log.error("unforeseen failure", exc_info=error))

    async def start(self) -> None:
        """Listen for the daemon's user and root. Replaces the socket of a dead daemon.

        Raises OSError when the path cannot be used, belongs to a live daemon, or is not a socket.
        """
        listener = _bind(self._path)
        made = self._path.stat()
        self._inode, self._uid = made.st_ino, made.st_uid
        self._server = await asyncio.start_unix_server(self._connected, sock=listener, limit=LINE_BYTES_MAX)

    async def close(self) -> None:
        """Stop listening and end running commands. Their clients see that the answer was cut short."""
        with suppress(FileNotFoundError):
            # The path may belong to another daemon by now.
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        if self._server is not None:
            self._server.close()
        await self._tasks.cancel()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.spawn(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except CommandFailed as failed:
            await _send(writer, CommandRefused(failed.code.name, failed.detail))
        except (ConnectionError, TimeoutError) as error:
            self._log.info("operator left", error=str(error) or type(error).__name__)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) > CONNECTIONS_MAX:
            raise CommandFailed(ErrorCode.UNAVAILABLE, "too many commands are running: try again when some are done")
        uid = _peer_uid(writer)
        if uid not in (self._uid, ROOT_UID):
            self._log.warning("operator refused", uid=uid)
            raise CommandFailed(
                ErrorCode.FORBIDDEN, f"user {uid} may not command the daemon: run this as root or as user {self._uid}"
            )
        await _send(writer, Greeting(self._commands.version))
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            line = await _line(reader)
        if not line:
            return
        request = read_request(line)
        self._log.info("operator command", command=type(request).__name__, uid=uid, request=request.model_dump())
        async with aclosing(perform(self._commands, request)) as results:
            async for result in results:
                await _send(writer, result)
        await _send(writer, EndOfResults())


async def ask(path: Path, request: Request) -> AsyncGenerator[Result, None]:
    """Send the request to the running daemon and yield its results. Raises NoDaemon, DaemonSilent and CommandFailed."""
    reader, writer = await _connect(path)
    try:
        await _greeted(reader, path)
        writer.write(write_request(request))
        while not isinstance(answer := await _received(reader), EndOfResults):
            if not isinstance(answer, Greeting | CommandRefused):
                yield answer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        connection = _dialled(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        raise NoDaemon(f"no process listens at {path}") from error
    except BlockingIOError as error:
        raise DaemonSilent(f"a process holds {path} but accepts no connection") from error
    except OSError as error:
        raise CommandFailed(
            ErrorCode.FORBIDDEN,
            f"{path} cannot be used: {error.strerror or error}; run this as root or as the daemon's user",
        ) from error
    return await asyncio.open_unix_connection(sock=connection, limit=LINE_BYTES_MAX)


async def _greeted(reader: asyncio.StreamReader, path: Path) -> None:
    try:
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            answer = await _received(reader)
    except TimeoutError as error:
        raise DaemonSilent(f"a process holds {path} but does not answer") from error
    if not isinstance(answer, Greeting):
        raise CommandFailed(ErrorCode.UNAVAILABLE, f"{path} is not uplinkd's: check admin_socket")


async def _received(reader: asyncio.StreamReader) -> Answer:
    try:
        line = await _line(reader)
    except ConnectionError:
        line = b""
    if not line:
        raise CommandFailed(
            ErrorCode.UNAVAILABLE,
            "the daemon ended before it answered: its log says whether the command ran",
        )
    answer = read_answer(line)
    if isinstance(answer, CommandRefused):
        raise CommandFailed(ErrorCode.__members__.get(answer.code, ErrorCode.INTERNAL), answer.detail)
    return answer


async def _line(reader: asyncio.StreamReader) -> bytes:
    """One whole line; b"" at the end. Raises CommandFailed and ConnectionError."""
    try:
        line = await reader.readline()
    except ValueError as error:
        raise CommandFailed(
            ErrorCode.REQUEST_TOO_LARGE, f"a line has more than {LINE_BYTES_MAX} bytes: send a shorter one"
        ) from error
    return line if line.endswith(b"\n") else b""


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(write_answer(answer))
    await writer.drain()


def _bind(path: Path) -> socket.socket:
    if len(bytes(path)) > PATH_BYTES_MAX:
        raise OSError(
            errno.ENAMETOOLONG, f"admin socket {path} has more than {PATH_BYTES_MAX} bytes: set a shorter admin_socket"
        )
    if path.is_socket():
        if _is_owned(path):
            raise OSError(errno.EADDRINUSE, f"admin socket {path} belongs to another daemon: set another admin_socket")
        path.unlink(missing_ok=True)
    elif path.exists():
        raise OSError(errno.EEXIST, f"admin socket {path} is not a socket: remove it, or set another admin_socket")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(bytes(path))
        # No client can connect before listen(), so the mode is never too wide.
        path.chmod(MODE)
        listener.listen(CONNECTIONS_MAX)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno, f"admin socket {path} cannot be made: {error.strerror}; check its directory"
        ) from error
    return listener


def _is_owned(path: Path) -> bool:
    """Whether a process listens, or may be listening."""
    try:
        _dialled(path).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        # It accepts no connection now, or not from this user. That does not prove that its owner is dead.
        return True
    return True


def _dialled(path: Path) -> socket.socket:
    """Connect. A Unix socket connects at once or, when too many clients wait, not at all (BlockingIOError).

    asyncio would mistake the latter for a connection in progress. Raises OSError.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        connection.connect(bytes(path))
    except OSError:
        connection.close()
        raise
    return connection


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    connection = writer.get_extra_info("socket")
    uid: int = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
    return uid
