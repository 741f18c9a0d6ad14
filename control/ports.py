"""The behaviour that the control plane needs of the daemon. Plain values are the catalog's and the registry's own.

No method may block the event loop. An implementation that refuses raises `RequestRefused`; any other exception is a
fault of the server and gets 500.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from daemon.catalog.records import CleanupReport, ListQuery, Page, Upload
from protocol.errors import ErrorCode


class Permission(StrEnum):
    """What a token allows. Permissions are independent: none implies another."""

    READ = "read"
    DELETE = "delete"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the device's name or the operator's, within one tenant."""

    tenant: str
    subject: str
    is_operator: bool
    permissions: frozenset[Permission]


class RequestRefused(Exception):
    """A port says no: the registry's error, the HTTP status that fits it (400 to 599), and what happened to what."""

    def __init__(self, error: ErrorCode, status: int, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.error = error
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A bearer token and the seconds it is good for."""

    token: str = field(repr=False)
    expires_in_s: int


class Fault(Protocol):
    """One thing that keeps the daemon from doing its work: which part, and what is wrong with it."""

    @property
    def component(self) -> str: ...

    @property
    def detail(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answered request. `route` is the template, never the path; `method` and `route` have few values.

    `status` is 499 where the client went away before the end. `sent_bytes` counts the body, or where it was cut
    short all that had been handed to the socket. `error` is the registry's name, "" on success. `subject` is who
    asked, "" where nobody was identified.
    """

    request_id: str
    method: str
    route: str
    path: str
    status: int
    duration_s: float
    sent_bytes: int
    error: str
    subject: str
    remote: str


class Authenticator(Protocol):
    """Checks bearer tokens."""

    def authenticate(self, token: str) -> Principal:
        """Who holds the token; quick enough for each request. Raises RequestRefused, with status 401."""
        ...


class TokenExchange(Protocol):
    """Gives a device that proves its secret a bearer token."""

    async def exchange(self, tenant: str | None, device: str, secret: str) -> IssuedToken:
        """No tenant is the default one.

        Raises RequestRefused: 401 for a wrong pair (whichever half is wrong), 403 for a disabled device.
        """
        ...


class FileCatalog(Protocol):
    """Reads the catalog."""

    async def list(self, query: ListQuery) -> Page:
        """One page of a tenant's files, newest first."""
        ...

    async def get(self, tenant: str, file_id: int) -> Upload | None:
        """The file with this id if it is the tenant's."""
        ...

    async def find(self, tenant: str, device: str, name: str) -> Upload | None:
        """The file that the name stands for now: the current one, else the newest complete, else the newest ended."""
        ...

    def expires_ms(self, file: Upload) -> int | None:
        """When cleanup deletes the file as things stand, in Unix milliseconds; None is never."""
        ...


class Content(Protocol):
    """The open bytes of one complete file."""

    async def read(self, offset: int, count: int) -> bytes:
        """The `count` bytes at `offset`, fewer only if the file ends there. Raises OSError."""
        ...

    def send(self, socket_fd: int, offset: int, count: int) -> AsyncGenerator[int, None]:
        """Send the `count` bytes at `offset` to a connected socket that does not block, past its transport.

        Yields how many it took, each time that it took some; ends early only if the file ends there. Raises OSError,
        ConnectionError where the client has gone. Is closed before the socket's number can mean another.
        """
        ...

    async def close(self) -> None:
        """Give the file back. Called once, with no read or send under way."""
        ...


class ContentStore(Protocol):
    """Opens complete files for reading; a file that is open stays readable though it is deleted meanwhile."""

    def path(self, file_id: int) -> str:
        """Where the bytes lie below the directory that a reverse proxy may send from, as `2a/000000000000002a`."""
        ...

    async def open(self, file_id: int) -> Content:
        """Raises RequestRefused, with status 404 or 410, when the bytes are gone."""
        ...


class FileDeleter(Protocol):
    """Changes uploads and files."""

    async def delete(self, tenant: str, file_id: int, by: Principal) -> None:
        """Delete a file, or cancel a live upload and let its device know. Raises RequestRefused: 404 or 410."""
        ...


class CleanupRunner(Protocol):
    """Cleanup on demand."""

    async def run(self, dry_run: bool) -> CleanupReport:
        """One pass; with `dry_run` it only counts. Raises RequestRefused, with status 409, when a pass is under way."""
        ...


class HealthCheck(Protocol):
    """Knows what is wrong with the daemon."""

    async def problems(self) -> Sequence[Fault]:
        """Empty when uploads can be received and files read. Answers within two seconds, whatever is stuck."""
        ...


class MetricsPage(Protocol):
    """The process's metrics."""

    def render(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the text format that suits the Accept header, and its content type."""
        ...


class ExchangeMetrics(Protocol):
    """Counts requests."""

    def observe(self, exchange: Exchange) -> None: ...


class ExchangeLog(Protocol):
    """Where the control plane writes what happened."""

    def exchange(self, exchange: Exchange) -> None:
        """One answered request."""
        ...

    def failure(self, request_id: str, route: str, error: Exception) -> None:
        """A fault of the server, with its traceback; the client got 500, or a connection cut during the body."""
        ...


class RequestIds(Protocol):
    """Makes request ids."""

    def new(self) -> str:
        """Unpredictable, 1 to 64 characters of `[A-Za-z0-9._-]`."""
        ...


class MonotonicClock(Protocol):
    """Measures how long requests take."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What `make_app` needs."""

    authenticator: Authenticator
    token_exchange: TokenExchange
    files: FileCatalog
    contents: ContentStore
    uploads: FileDeleter
    cleaner: CleanupRunner
    health: HealthCheck
    metrics_page: MetricsPage
    http_metrics: ExchangeMetrics
    log: ExchangeLog
    request_ids: RequestIds
    clock: MonotonicClock
