"""The HTTP control plane as the command line uses it: list, find, download, delete. control/openapi.yaml."""

import asyncio
import hashlib
import json
import random as random_module
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from yarl import URL

from device.backoff import Backoff
from device.exceptions import UplinkError
from protocol.checksum import crc32c

BLOCK_BYTES = 1024 * 1024
"""Read, hashed and written at a time."""

STALL_TIMEOUT_S = 30.0
"""How long connecting may take, or waiting for the next bytes."""

ATTEMPTS_MAX = 5
"""Give a download up after this many attempts in a row without a byte."""


class ControlPlaneError(UplinkError):
    """The control plane refused. `status` is HTTP's, `code` the error registry's, 0 if it gave none."""

    def __init__(self, status: int, code: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class NoAnswerError(UplinkError):
    """The control plane cannot be reached, or the connection broke."""


class DigestError(UplinkError):
    """The downloaded bytes do not have the file's digest."""


class TargetError(UplinkError):
    """The downloaded bytes cannot be written."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the control plane describes it; times are RFC 3339, digests hexadecimal."""

    id: str
    device: str
    name: str
    state: str
    size: int | None
    next_expected_byte: int
    updated: str
    crc32c: str | None
    sha256: str | None


class ControlPlane:
    """A session with the control plane at `base`, an http or https URL; `token` is the bearer token, if there is one.

    `tls`: checks an https server; None trusts the system's authorities.
    """

    def __init__(
        self,
        base: str,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._base = URL(base)
        self._sleep = sleep
        self._random = random
        self._token = token
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        timeout = ClientTimeout(total=None, sock_connect=STALL_TIMEOUT_S, sock_read=STALL_TIMEOUT_S)
        self._session = ClientSession(timeout=timeout, auto_decompress=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def exchange(self, tenant: str, device: str, secret: str) -> None:
        """Exchange the device's secret for a token, and use that from now on."""
        self._token = None
        body = {"tenant": tenant, "device": device, "secret": secret}
        async with self._request("POST", "/v1/token", body=body) as response:
            self._token = _text(await _object(response), "access_token")

    async def files(self, device: str | None, states: tuple[str, ...], prefix: str | None) -> AsyncIterator[RemoteFile]:
        """All files that match, newest first, fetched page by page."""
        query = [("state", state) for state in states]
        query += [(key, value) for key, value in (("device", device), ("prefix", prefix)) if value is not None]
        cursor: str | None = None
        while True:
            page = query if cursor is None else [*query, ("cursor", cursor)]
            async with self._request("GET", "/v1/files", query=page) as response:
                answer = await _object(response)
            for item in _list(answer, "files"):
                yield _file(item)
            following = answer.get("next_cursor")
            if not isinstance(following, str):
                return
            cursor = following

    async def find(self, device: str, name: str) -> RemoteFile:
        """A device's file by its name."""
        path = f"/v1/devices/{quote(device, safe='')}/files/{quote(name, safe='')}"
        async with self._request("GET", path) as response:
            return _file(await _object(response))

    async def delete(self, file: RemoteFile) -> None:
        """Delete the file, or cancel the upload."""
        async with self._request("DELETE", f"/v1/files/{file.id}"):
            return

    async def download(self, file: RemoteFile, target: Path, on_progress: Callable[[int], None]) -> None:
        """Download a complete file to `target`, by way of `target`.part, from which a later try resumes.

        `on_progress` gets the number of bytes written. Raises DigestError, TargetError.
        """
        part = target.with_name(f"{target.name}.part")
        try:
            is_resumed = await asyncio.to_thread(_cut_to, part, file.size or 0)
            # The bytes of an earlier try may be another file's: then try again from the start.
            for _ in range(2 if is_resumed else 1):
                await self._fill(file, part, on_progress)
                if await asyncio.to_thread(_fits, part, file):
                    part.replace(target)
                    return
                part.unlink()
        except OSError as error:
            raise TargetError(f"{part} cannot be written: {error.strerror or error}; check space and rights") from error
        raise DigestError(f"the bytes of {file.name} do not have the digest the server names; try again")

    async def _fill(self, file: RemoteFile, part: Path, on_progress: Callable[[int], None]) -> None:
        attempts, backoff = 0, Backoff(self._random)
        with part.open("ab") as output:
            while (start := output.tell()) < (file.size or 0):
                try:
                    await self._append(file, output, on_progress)
                except NoAnswerError:
                    if output.tell() > start:
                        attempts = 0
                        backoff.reset()
                    attempts += 1
                    if attempts == ATTEMPTS_MAX:
                        raise
                    await self._sleep(backoff.next_s())

    async def _append(self, file: RemoteFile, output: BinaryIO, on_progress: Callable[[int], None]) -> None:
        start = output.tell()
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self._request("GET", f"/v1/files/{file.id}/content", headers=headers) as response:
            if start and response.status != 206:
                output.seek(0)
                output.truncate()
            async for block in response.content.iter_chunked(BLOCK_BYTES):
                await asyncio.to_thread(output.write, block)
                on_progress(output.tell())
            if output.tell() <= start:
                raise NoAnswerError(f"{self._base} sent nothing of {file.name} from byte {start} on")

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[ClientResponse]:
        url = URL(f"{str(self._base).rstrip('/')}{path}", encoded=True).with_query(query or [])
        sent = dict(headers or {})
        if self._token is not None:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            async with self._session.request(method, url, json=body, headers=sent, ssl=self._tls) as response:
                if response.status >= 400:
                    raise await _refusal(response)
                yield response
        except (ClientError, TimeoutError) as error:
            raise NoAnswerError(
                f"{self._base} did not answer {method} {path}: {error or type(error).__name__}; "
                "is uplinkd running there? (--http, UPLINK_HTTP)"
            ) from error


async def _refusal(response: ClientResponse) -> ControlPlaneError:
    code, detail = 0, f"HTTP status {response.status}"
    try:
        problem = await _object(response)
    except NoAnswerError:
        # A proxy in between may have answered: its status is all that can be reported.
        problem = {}
    if isinstance(problem.get("code"), int) and isinstance(problem.get("detail"), str):
        code, detail = int(str(problem["code"])), f"{problem.get('name')}: {problem['detail']}"
    return ControlPlaneError(response.status, code, detail)


async def _object(response: ClientResponse) -> dict[str, object]:
    try:
        answer = json.loads(await response.read())
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoAnswerError(f"{response.url} does not speak as uplinkd's control plane does; check --http, UPLINK_HTTP")
    return answer


def _list(answer: dict[str, object], key: str) -> list[dict[str, object]]:
    found = answer.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise NoAnswerError(f"the control plane's answer has no list {key!r}")
    return found


def _text(answer: dict[str, object], key: str) -> str:
    found = answer.get(key)
    if not isinstance(found, str):
        raise NoAnswerError(f"the control plane's answer has no text {key!r}")
    return found


def _file(item: dict[str, object]) -> RemoteFile:
    size, following, digests = item.get("size"), item.get("next_expected_byte"), item.get("digests")
    known = digests if isinstance(digests, dict) else {}
    return RemoteFile(
        id=_text(item, "id"),
        device=_text(item, "device"),
        name=_text(item, "name"),
        state=_text(item, "state"),
        size=size if isinstance(size, int) else None,
        next_expected_byte=following if isinstance(following, int) else 0,
        updated=_text(item, "updated"),
        crc32c=known.get("crc32c"),
        sha256=known.get("sha256"),
    )


def _cut_to(part: Path, size: int) -> bool:
    """Whether there is a part to resume from; one that is longer than the file is removed."""
    held = part.stat().st_size if part.exists() else 0
    if held > size:
        part.unlink()
    return 0 < held <= size


def _fits(part: Path, file: RemoteFile) -> bool:
    if part.stat().st_size != file.size:
        return False
    crc, sha256 = 0, hashlib.sha256()
    with part.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            crc = crc32c(block, crc)
            if file.sha256 is not None:
                sha256.update(block)
    return file.crc32c in (None, f"{crc:08x}") and file.sha256 in (None, sha256.hexdigest())
