"""The control plane's ports in memory. Tests put files in, and read what the server did."""

import asyncio
import hashlib
import itertools
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace

from control.ports import Content, Exchange, IssuedToken, Permission, Ports, Principal, RequestRefused
from daemon.catalog.records import CleanupReport, ListQuery, Metadata, Page, Position, State, Upload
from protocol.errors import ErrorCode
from protocol.ranges import DigestedRange

NO_METADATA = Metadata()

SEND_BYTES = 100_000
"""The most that one call sends, so that a large body takes several calls."""

COMPLETED_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""


@dataclass
class FakeAuthenticator:
    principals: dict[str, Principal] = field(default_factory=dict)

    def authenticate(self, token: str) -> Principal:
        if token not in self.principals:
            raise RequestRefused(ErrorCode.UNAUTHENTICATED, 401, "the token's signature is wrong")
        return self.principals[token]


@dataclass
class FakeTokenExchange:
    secrets: dict[tuple[str, str], str] = field(default_factory=dict)
    busy: bool = False

    async def exchange(self, tenant: str | None, device: str, secret: str) -> IssuedToken:
        if self.busy:
            raise RequestRefused(ErrorCode.RATE_LIMITED, 429, "too many exchanges", retry_after_s=7)
        if self.secrets.get((tenant or "default", device)) != secret:
            raise RequestRefused(ErrorCode.UNAUTHENTICATED, 401, "unknown device or wrong secret")
        return IssuedToken(f"token-of-{device}", 3600)


@dataclass
class FakeFiles:
    by_id: dict[int, tuple[str, Upload]] = field(default_factory=dict)
    queries: list[ListQuery] = field(default_factory=list)
    expiry_ms: dict[int, int] = field(default_factory=dict)

    async def list(self, query: ListQuery) -> Page:
        self.queries.append(query)
        matching = sorted(
            (file for tenant, file in self.by_id.values() if tenant == query.tenant and _fits(file, query)),
            key=lambda file: (file.created_ms, file.id),
            reverse=True,
        )
        page = matching[: query.limit]
        more = len(matching) > query.limit
        return Page(tuple(page), Position(page[-1].created_ms, page[-1].id) if more else None)

    async def get(self, tenant: str, file_id: int) -> Upload | None:
        owner, file = self.by_id.get(file_id, ("", None))
        return file if owner == tenant else None

    async def find(self, tenant: str, device: str, name: str) -> Upload | None:
        matching = [
            file for owner, file in self.by_id.values() if (owner, file.device, file.name) == (tenant, device, name)
        ]
        return max(matching, key=lambda file: file.id, default=None)

    def expires_ms(self, file: Upload) -> int | None:
        return self.expiry_ms.get(file.id)


def _fits(file: Upload, query: ListQuery) -> bool:
    return all(
        (
            query.device in {None, file.device},
            not query.states or file.state in query.states,
            file.name.startswith(query.name_prefix or ""),
            query.updated_from_ms is None or file.updated_ms >= query.updated_from_ms,
            query.updated_to_ms is None or file.updated_ms <= query.updated_to_ms,
            query.after is None or (file.created_ms, file.id) < (query.after.time_ms, query.after.id),
        )
    )


class FakeContent:
    def __init__(self, owner: "FakeContents", data: bytes) -> None:
        self._owner = owner
        self._data = data
        self._is_sending = False

    async def read(self, offset: int, count: int) -> bytes:
        self._owner.reads.append((offset, count))
        await asyncio.sleep(0)
        self._owner.check(offset)
        return self._data[offset : offset + count]

    async def send(self, socket_fd: int, offset: int, count: int) -> AsyncGenerator[int, None]:
        self._is_sending = True
        own = os.dup(socket_fd)
        try:
            end = min(offset + count, len(self._data))
            while offset < end:
                self._owner.check(offset)
                try:
                    sent = os.write(own, self._data[offset : min(end, offset + SEND_BYTES)])
                except BlockingIOError:
                    await _writable(own)
                    continue
                offset += sent
                yield sent
        finally:
            self._is_sending = False
            os.close(own)

    async def close(self) -> None:
        assert not self._is_sending, "closed while it was sending"
        self._owner.open_count -= 1


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)


@dataclass
class FakeContents:
    data: dict[int, bytes] = field(default_factory=dict)
    reads: list[tuple[int, int]] = field(default_factory=list)
    opened: int = 0
    open_count: int = 0
    fail_at: float = float("inf")

    def path(self, file_id: int) -> str:
        return f"shard/{file_id:016x}"

    async def open(self, file_id: int) -> Content:
        if file_id not in self.data:
            raise RequestRefused(ErrorCode.GONE, 410, "the bytes are gone")
        self.opened += 1
        self.open_count += 1
        return FakeContent(self, self.data[file_id])

    def check(self, offset: int) -> None:
        if offset >= self.fail_at:
            raise OSError(5, "Input/output error")


@dataclass
class FakeUploads:
    files: FakeFiles
    deleted: list[tuple[str, int, Principal]] = field(default_factory=list)

    async def delete(self, tenant: str, file_id: int, by: Principal) -> None:
        self.deleted.append((tenant, file_id, by))
        owner, file = self.files.by_id[file_id]
        self.files.by_id[file_id] = (owner, replace(file, state=State.DELETED))


@dataclass
class FakeCleaner:
    runs: list[bool] = field(default_factory=list)
    busy: bool = False

    async def run(self, dry_run: bool) -> CleanupReport:
        if self.busy:
            raise RequestRefused(ErrorCode.CONFLICT, 409, "a cleanup pass is running")
        self.runs.append(dry_run)
        return CleanupReport(dry_run, 3, 0, 2, 1, 5, 0, 4096, None)


@dataclass(frozen=True)
class FakeFault:
    component: str
    detail: str


@dataclass
class FakeHealth:
    found: list[FakeFault] = field(default_factory=list)
    fault: Callable[[], Exception] | None = None
    gate: asyncio.Event | None = None
    asked: int = 0

    async def problems(self) -> Sequence[FakeFault]:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault()
        return self.found


class FakeExposition:
    def render(self, accept: str) -> tuple[bytes, str]:
        if "openmetrics" in accept:
            return (b"# EOF\n", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        return (b"up 1\n", "text/plain; version=0.0.4; charset=utf-8")


@dataclass
class FakeHttpMetrics:
    seen: list[Exchange] = field(default_factory=list)

    def observe(self, exchange: Exchange) -> None:
        self.seen.append(exchange)


@dataclass
class FakeLog:
    exchanges: list[Exchange] = field(default_factory=list)
    failures: list[tuple[str, str, Exception]] = field(default_factory=list)

    def exchange(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def failure(self, request_id: str, route: str, error: Exception) -> None:
        self.failures.append((request_id, route, error))


class FakeRequestIds:
    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self) -> str:
        return f"req-{next(self._numbers):06d}"


class FakeClock:
    """Each reading moves the clock by half a second."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += 0.5
        return self._now_s


class World:
    """Fakes for a whole daemon, with a few tokens that it accepts."""

    def __init__(self) -> None:
        self.authenticator = FakeAuthenticator()
        self.token_exchange = FakeTokenExchange()
        self.files = FakeFiles()
        self.contents = FakeContents()
        self.uploads = FakeUploads(self.files)
        self.cleaner = FakeCleaner()
        self.health = FakeHealth()
        self.http_metrics = FakeHttpMetrics()
        self.log = FakeLog()
        self._ids = itertools.count(0x1001)
        self.admit("operator", *Permission)
        self.admit("reader", Permission.READ)
        self.admit("cam-1", Permission.READ, Permission.DELETE, is_operator=False)
        self.admit("cam-2", Permission.READ, Permission.DELETE, is_operator=False)
        self.admit("stranger", *Permission, tenant="elsewhere")

    def ports(self) -> Ports:
        return Ports(
            authenticator=self.authenticator,
            token_exchange=self.token_exchange,
            files=self.files,
            contents=self.contents,
            uploads=self.uploads,
            cleaner=self.cleaner,
            health=self.health,
            metrics_page=FakeExposition(),
            http_metrics=self.http_metrics,
            log=self.log,
            request_ids=FakeRequestIds(),
            clock=FakeClock(),
        )

    def admit(self, subject: str, *permissions: Permission, tenant: str = "default", is_operator: bool = True) -> None:
        """Accept the text `subject` as a token for `subject`."""
        self.authenticator.principals[subject] = Principal(tenant, subject, is_operator, frozenset(permissions))

    def put(self, data: bytes = b"", name: str = "log.bin", device: str = "cam-1", tenant: str = "default") -> Upload:
        """Add a complete file with `data`."""
        file_id = next(self._ids)
        file = make_file(
            id=file_id,
            device=device,
            name=name,
            size=len(data),
            ranges=(DigestedRange(0, len(data), 0),) if data else (),
            sha256=hashlib.sha256(data).digest(),
            created_ms=COMPLETED_MS - 60_000 + file_id,
        )
        self.files.by_id[file_id] = (tenant, file)
        self.contents.data[file_id] = data
        return file

    def alter(
        self,
        file: Upload,
        *,
        state: State | None = None,
        content_type: str | None = None,
        updated_ms: int | None = None,
    ) -> Upload:
        """Change a file that was added."""
        altered = replace(
            file,
            state=state or file.state,
            metadata=file.metadata if content_type is None else Metadata(content_type),
            updated_ms=file.updated_ms if updated_ms is None else updated_ms,
        )
        self.files.by_id[file.id] = (self.files.by_id[file.id][0], altered)
        return altered


def make_file(
    *,
    id: int = 0xABC,  # noqa: A002 - the field's own name
    device: str = "cam-1",
    name: str = "log.bin",
    state: State = State.COMPLETE,
    size: int | None = 10,
    ranges: tuple[DigestedRange, ...] = (DigestedRange(0, 10, 0),),
    created_ms: int = COMPLETED_MS - 60_000,
    completed_ms: int | None = COMPLETED_MS,
    crc32c: int | None = 0x0A0B0C0D,
    sha256: bytes | None = bytes(range(32)),
    metadata: Metadata = NO_METADATA,
    tenant: str = "default",
) -> Upload:
    """A complete file, with the fields that the test changes."""
    return Upload(
        id=id,
        tenant=tenant,
        device=device,
        name=name,
        state=state,
        epoch=1,
        size=size,
        tag=b"",
        ranges=ranges,
        crc32c=crc32c,
        sha256=sha256,
        crc32c_expected=None,
        sha256_expected=sha256,
        metadata=metadata,
        created_ms=created_ms,
        updated_ms=COMPLETED_MS,
        completed_ms=completed_ms,
    )
