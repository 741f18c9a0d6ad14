"""The device's client library: uploads that survive every break of the link. PROTOCOL.md §8, §12 and §16."""

import asyncio
import random as random_module
import ssl
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import BinaryIO, Protocol, Self, TypeVar

from device.backoff import Backoff, Patience
from device.connector import Connect, Connector, HelloFields
from device.credentials import Credentials
from device.exceptions import LinkOver, StreamOver, explain, upload_failure
from device.link import Link
from device.pace import Pace
from device.report import FileMetadata, ProgressListener, Sent
from device.timing import Timing
from device.transfer import StatusQuery, Transfer, TransferOptions
from device.transfer_source import open_transfer_source
from protocol import frames
from protocol.checksum import Buffer
from protocol.constants import (
    AGENT_BYTES_MAX,
    Action,
    Disposition,
    Feature,
    FrameType,
)

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)

CHUNK_BYTES = 256 * 1024
"""Large enough that headers, checksums and acknowledgements cost little; slow links get smaller chunks."""

_NO_FEATURES = Feature(0)
_NO_METADATA = FileMetadata()
_FORM_FEATURES = {FrameType.CHUNK_CRC32C: Feature.CHUNK_CRC32C, FrameType.CHUNK_COMPACT: Feature.CHUNK_COMPACT}


class Work(Protocol[Answer_co]):
    """Something that is tried, on one connection after the other, until it is done."""

    async def run(self, link: Link) -> Answer_co:
        """One try. Raises LinkOver or StreamOver."""
        ...

    def replace(self, code: int, backoff: Backoff) -> float | None:
        """Let the next try replace what the server has, as `code` asks; seconds to wait before. None: it may not."""
        ...


class Uplink:
    """A device's connection to a server, made when needed and again whenever it breaks.

    Use it as `async with`. Several `send` may run at once and share the connection.

    `tls`: the context of a TLS connection, with ALPN `uplinkd/1` set; None for plain TCP.
    `chunk_bytes`: the most data in one chunk; it is less on a slow link, or if the server takes less. `chunk_form`:
    CHUNK_CRC32C, CHUNK_COMPACT or CHUNK; a server that does not take it gets CHUNK. `features_required`: refuse a
    server without these. `attempts_max`, `deadline_s`: after this many attempts, or seconds, without progress a call
    raises UnreachableError; None is without limit. `connect_timeout_s` is for the connection, and again for the
    handshake. `clock` gives monotonic seconds, `random` returns [0, 1), `connect` replaces the TCP connection.
    """

    def __init__(
        self,
        host: str,
        port: int,
        credentials: Credentials,
        *,
        tls: ssl.SSLContext | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        chunk_form: FrameType = FrameType.CHUNK_CRC32C,
        features_required: Feature = _NO_FEATURES,
        agent: str | None = "uplink",
        agent_version: str | None = None,
        attempts_max: int | None = None,
        deadline_s: float | None = None,
        connect_timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random_module.random,
        connect: Connect | None = None,
    ) -> None:
        if chunk_bytes < 1:
            raise ValueError(f"chunk_bytes {chunk_bytes}: use 1 or more")
        if any(len((text or "").encode()) > AGENT_BYTES_MAX for text in (agent, agent_version)):
            raise ValueError(f"agent and agent_version: at most {AGENT_BYTES_MAX} bytes each")
        self._host, self._port, self._tls = host, port, tls
        self._credentials = credentials
        self._chunk_form = chunk_form
        self._attempts_max, self._deadline_s = attempts_max, deadline_s
        self._timing = Timing(clock, sleep, connect_timeout_s)
        self._random = random
        features = Feature.SHA256 | _FORM_FEATURES.get(chunk_form, _NO_FEATURES) | features_required
        self._connector = Connector(
            connect or self._connect_tcp,
            f"{host}:{port}",
            HelloFields(features, features_required, agent, agent_version),
            credentials,
            self._timing,
            Pace(chunk_bytes),
            random,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. What was acknowledged stays on the server; unfinished uploads can be resumed."""
        await self._connector.close()

    async def send(
        self,
        source: Buffer | BinaryIO,
        name: str,
        *,
        size: int | None = None,
        tag: bytes | None = None,
        sha256: bytes | None = None,
        metadata: FileMetadata = _NO_METADATA,
        disposition: Disposition = Disposition.RESUME_OR_CREATE,
        replace: bool = False,
        identify: bool = True,
        on_progress: ProgressListener | None = None,
    ) -> Sent:
        """Send bytes, or a seekable binary file, under a name; return once the server has verified and kept them.

            async with Uplink("127.0.0.1", 7710, credentials) as uplink:
                with open("clip.bin", "rb") as source:
                    try:
                        await uplink.send(source, "clips/clip.bin")
                    except ContentChanged:
                        ...  # The server has another clip of this name: choose another, or send with replace=True.

        Resumes what the server has under the name, in this call and over any number of calls. The source is
        identified by its SHA-256, or by size and time of modification if it is a whole file above 64 MiB (so setting
        that time counts as a change). A digest of the whole is compared at the end, so that other content, or a mix,
        never counts as sent.

        `size`: send only the first `size` bytes. `replace`: replace what the server has under the name if that is
        other content; a replacement that ends before it is complete is made again, up to REPLACEMENTS_MAX in all.
        `tag`: at most 32 bytes that identify the content, in place of the tag made here. `sha256`: the digest that the
        source must have. `identify=False`: make no tag, and read nothing twice; a name then MUST always stand for the
        same content, or bytes are lost without an error (PROTOCOL.md §6). `on_progress` must not raise.

        A call that is cancelled leaves the upload to be resumed. Raises ContentChanged (the server has other content
        under the name), SourceChanged (the source changed while it was sent), SourceError, UnreachableError,
        UploadFailed.
        """
        opened = await open_transfer_source(source, size, tag=tag, sha256=sha256, identify=identify)
        request = frames.Open(
            disposition,
            opened.size,
            name,
            tag=opened.tag,
            sha256=opened.sha256,
            content_type=metadata.content_type,
            external_id=metadata.external_id,
            original_name=metadata.original_name,
        )
        patience = self._patience()
        options = TransferOptions(self._chunk_form, replace)
        backoff = Backoff(self._random)

        def progressed() -> None:
            for each in (patience.progressed, backoff.reset, self._connector.progressed):
                each()

        transfer = Transfer(opened, request, options, progressed, on_progress)
        return await self._retry(transfer, patience, backoff)

    async def status(self, name: str) -> frames.Status:
        """How far the server is with a name; state NONE if it knows none. Raises UploadFailed, UnreachableError."""
        return await self._retry(StatusQuery(name), self._patience(), Backoff(self._random))

    def _patience(self) -> Patience:
        return Patience(self._attempts_max, self._deadline_s, self._timing.clock)

    async def _retry(self, work: Work[Answer], patience: Patience, backoff: Backoff) -> Answer:
        while True:
            try:
                return await work.run(await self._connector.connected())
            except LinkOver as over:
                ending = over.ending
                if ending.final:
                    raise upload_failure(ending.code, ending.detail, ending.action) from None
                patience.interrupted(ending.detail, self._connector.wait_s)
            except StreamOver as over:
                wait_s = await self._act_on(over.error, work, backoff)
                patience.interrupted(explain(over.error.code, over.error.text), wait_s)
                await self._timing.sleep(wait_s)

    async def _act_on(self, error: frames.Error, work: Work[Answer], backoff: Backoff) -> float:
        """Do what an ERROR of a stream asks for; seconds to wait before the next try. Raises UploadFailed."""
        match error.action:
            case Action.WAIT | Action.REOPEN | Action.SEND_AGAIN:
                return backoff.after_s(error.wait_ms)
            case Action.OPEN_ANEW if (wait_s := work.replace(error.code, backoff)) is not None:
                return wait_s
            case Action.REAUTHENTICATE if self._credentials.discard(refused=False):
                await self._connector.hang_up()
                return backoff.next_s()
        raise upload_failure(error.code, explain(error.code, error.text), error.action)

    async def _connect_tcp(self) -> tuple[StreamReader, StreamWriter]:
        # asyncio sets TCP_NODELAY on every TCP connection.
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls)
