"""Reads complete files back and compares them with their digests in the catalog."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from daemon.adapters.clock import Clock
from daemon.adapters.threads import Lane, Report, Threads
from daemon.catalog.records import ListQuery, Page, Position, State, Upload
from daemon.storage.interface import Contents
from protocol.checksum import crc32c

STEP_BYTES = 1024 * 1024
"""Read at a time. Even a slow disk reads it in 10 ms, so downloads, which wait in the same queue, do not stall."""

PROGRESS_BYTES = 64 * STEP_BYTES
"""Read between two reports of progress: about a second on a slow disk."""

PAGE_ROWS = 250
"""Uploads read from the catalog at a time, which takes a few milliseconds."""


class Verdict(StrEnum):
    """The result of the check of one file."""

    OK = "ok"
    DAMAGED = "damaged"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Checked:
    """One file: its upload id in hex, and the verdict. `detail` says what is wrong, "" if the verdict is OK."""

    upload: str
    tenant: str
    device: str
    name: str
    size: int
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How many files were checked, and how many bytes were read, so far."""

    files: int
    read_bytes: int


class Files(Protocol):
    """What the check needs of the catalog. All methods raise CatalogFailed."""

    async def get(self, upload_id: int) -> Upload | None: ...

    async def list(self, query: ListQuery) -> Page: ...

    async def older(
        self, state: State, before_ms: int, limit: int, after: Position | None = None
    ) -> Sequence[Upload]: ...


@dataclass(slots=True)
class _Digests:
    """Digests of the bytes read so far. SHA-256 only if the catalog has one to compare."""

    sha256: "hashlib._Hash | None"
    crc32c: int = 0
    read_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Step:
    digests: _Digests
    piece: bytes
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Verifier:
    """Checks complete files. Checks may run at the same time: each hashes on a thread of its own."""

    __slots__ = ("_catalog", "_clock", "_contents", "_threads")

    def __init__(self, catalog: Files, contents: Contents, threads: Threads, clock: Clock) -> None:
        self._catalog = catalog
        self._contents = contents
        self._threads = threads
        self._clock = clock

    async def verify(self, tenant: str | None, device: str | None) -> AsyncGenerator[Checked | VerifyProgress, None]:
        """Yield one `Checked` for each file that was complete at the start and still is, and progress in between.

        `tenant` None stands for all tenants, and `device` None for all devices. `device` needs a `tenant`.
        Raises CatalogFailed.
        """
        lane = self._threads.lane("verify", _hash)
        files = read_bytes = shown_bytes = 0
        try:
            async with aclosing(self._complete(tenant, device)) as uploads:
                async for upload in uploads:
                    digests = _Digests(None if upload.sha256 is None else hashlib.sha256())
                    failure: OSError | None = None
                    try:
                        async with aclosing(self._digest(upload, digests, lane)) as steps:
                            async for count in steps:
                                read_bytes += count
                                if read_bytes - shown_bytes >= PROGRESS_BYTES:
                                    shown_bytes = read_bytes
                                    yield VerifyProgress(files, read_bytes)
                    except OSError as error:
                        failure = error
                    files += 1
                    checked = _compare(upload, digests, failure)
                    # A file that was deleted meanwhile is not missing.
                    if checked.verdict is Verdict.OK or await self._is_complete(upload.id):
                        yield checked
        finally:
            await lane.close()

    async def _complete(self, tenant: str | None, device: str | None) -> AsyncGenerator[Upload, None]:
        after: Position | None = None
        if tenant is not None:
            while True:
                page = await self._catalog.list(
                    ListQuery(tenant, PAGE_ROWS, device, frozenset({State.COMPLETE}), after=after)
                )
                for upload in page.uploads:
                    yield upload
                if (after := page.next) is None:
                    return
        now_ms = self._clock.wall_ms()
        while batch := await self._catalog.older(State.COMPLETE, now_ms + 1, PAGE_ROWS, after):
            for upload in batch:
                yield upload
            after = Position(batch[-1].updated_ms, batch[-1].id)

    async def _digest(self, upload: Upload, digests: _Digests, lane: Lane[_Step]) -> AsyncGenerator[int, None]:
        """Yield how many bytes each step read and hashed, until the upload or its file ends. Raises OSError."""
        size = upload.size or 0
        if not size:
            return
        reading = await self._contents.open(upload.id)
        try:
            while piece := await reading.read(digests.read_bytes, min(size - digests.read_bytes, STEP_BYTES)):
                step = _Step(digests, piece)
                lane.put(step)
                await step.done
                yield len(piece)
                if digests.read_bytes == size:
                    return
        finally:
            await reading.close()

    async def _is_complete(self, upload_id: int) -> bool:
        upload = await self._catalog.get(upload_id)
        return upload is not None and upload.state is State.COMPLETE


def _compare(upload: Upload, digests: _Digests, failure: OSError | None) -> Checked:
    size = upload.size or 0
    verdict, detail = Verdict.OK, ""
    if isinstance(failure, FileNotFoundError):
        verdict, detail = Verdict.MISSING, "its file is gone"
    elif failure is not None:
        verdict = Verdict.UNREADABLE
        detail = f"at byte {digests.read_bytes}: {failure.strerror or failure}; look at the disk and the kernel's log"
    elif digests.read_bytes < size:
        verdict, detail = Verdict.DAMAGED, f"ends after {digests.read_bytes} of {size} bytes"
    elif digests.crc32c != upload.crc32c:
        verdict, detail = Verdict.DAMAGED, f"CRC32C is {digests.crc32c:08x} instead of {upload.crc32c or 0:08x}"
    elif digests.sha256 is not None and digests.sha256.digest() != upload.sha256:
        verdict, detail = Verdict.DAMAGED, "SHA-256 differs from the one that the device gave"
    return Checked(f"{upload.id:016x}", upload.tenant, upload.device, upload.name, size, verdict, detail)


def _hash(batch: list[_Step]) -> Report:
    for step in batch:
        digests = step.digests
        digests.crc32c = crc32c(step.piece, digests.crc32c)
        if digests.sha256 is not None:
            digests.sha256.update(step.piece)
        digests.read_bytes += len(step.piece)
    return lambda: _report(batch)


def _report(batch: list[_Step]) -> None:
    for step in batch:
        if not step.done.cancelled():
            step.done.set_result(None)
