"""The device's client library: uploads that survive every break of the link. PROTOCOL.md §8, §12, §15, §16 and §20."""

import asyncio
import random as random_module
import ssl
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import BinaryIO, Protocol, Self, TypeVar

from device.backoff import Backoff, Patience
from device.content import open_content
from device.credentials import Credentials
from device.exceptions import CredentialError, Ending, LinkOver, StreamOver, explain, upload_failure
from device.link import Link, Timing
from device.pace import Pace
from device.report import Metadata, ProgressListener, Sent
from device.source import Bytes
from device.transfer import Question, Transfer, TransferOptions
from protocol import frames
from protocol.client import ClientConnection
from protocol.constants import (
    AGENT_BYTES_MAX,
    CONTROL_FRAME_BYTES_MAX,
    Action,
    CredentialKind,
    Disposition,
    Feature,
    FrameType,
)

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)
Connect = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]

CHUNK_BYTES = 256 * 1024
"""Large enough that headers, checksums and acknowledgements cost nothing; slow links get smaller ones."""

ACK_RANGES_MAX = 16
"""Ranges in an ACK: what a window of chunks can leave behind after a few refusals."""

_NO_FEATURES = Feature(0)
_NO_METADATA = Metadata()
_FORM_FEATURES = {FrameType.CHUNK_CRC32C: Feature.CHUNK_CRC32C, FrameType.CHUNK_COMPACT: Feature.CHUNK_COMPACT}


class Work(Protocol[Answer_co]):
    """Something that is tried on one connection after the other until it is done."""

    async def run(self, link: Link) -> Answer_co:
        """One try. Raises LinkOver or StreamOver."""
        ...

    def open_anew(self) -> bool:
        """Whether the next try may, and will, replace what is there."""
        ...


class Uplink:
    """A device's connection to a server, made when needed and made again whenever it breaks.

    Use it as `async with`; several `send` may run at once and share the connection.

    `tls`: the context of a TLS connection, with ALPN `uplinkd/1` set; None for plain TCP.
    `chunk_bytes`: data in one chunk at most; less where the link is slow, or the server takes less. `chunk_form`:
    CHUNK_CRC32C, CHUNK_COMPACT or CHUNK; where the server does not take it, CHUNK is used. `features_required`: a
    server without these is refused. `attempts_max`, `deadline_s`: how many attempts, or seconds, without progress make
    a call raise UnreachableError; None is without limit. `connect_timeout_s` is for the connection, and again for the
    handshake. `clock` is monotonic seconds, `random` returns [0, 1), `connect` replaces the TCP connection.
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
        self._features_required = features_required
        self._agent, self._agent_version = agent, agent_version
        self._attempts_max, self._deadline_s = attempts_max, deadline_s
        self._connect_timeout_s = connect_timeout_s
        self._timing = Timing(clock, sleep, connect_timeout_s)
        self._pace = Pace(chunk_bytes)
        self._features_asked = Feature.SHA256 | _FORM_FEATURES.get(chunk_form, _NO_FEATURES) | features_required
        # Taken to be in force until WELCOME tells, so that OPEN need not wait for it; None where it has to.
        self._features = None if features_required else self._features_asked
        self._random = random
        self._connect = connect or self._connect_tcp
        self._backoff = Backoff(random)
        self._link: Link | None = None
        self._running: asyncio.Task[None] | None = None
        self._attempt: asyncio.Task[Link] | None = None
        self._not_before = clock()
        self._last_end = 0
        self._has_progressed = False
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. What was acknowledged stays on the server; unfinished uploads can be resumed."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        await self._hang_up()

    async def send(
        self,
        source: Bytes | BinaryIO,
        name: str,
        *,
        size: int | None = None,
        tag: bytes | None = None,
        sha256: bytes | None = None,
        metadata: Metadata = _NO_METADATA,
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
        identified by its SHA-256, or if it is a file above 64 MiB by its size and time of modification; a digest of the
        whole is compared at the end, so that other content, or a mix, never counts as sent.

        `size`: send only the first `size` bytes. `replace`: replace what the server has under the name if that is
        other content. `tag`: at most 32 bytes that identify the content, in place of the tag made here. `sha256`: the
        digest that the source must have. `identify=False`: make no tag, and read nothing twice; a name then MUST always
        stand for the same content, or bytes are lost without an error (PROTOCOL.md §6). `on_progress` must not raise.

        A call that is cancelled leaves the upload to be resumed. Raises ContentChanged (the server has other content
        under the name), SourceChanged (the source changed while it was sent), SourceError, UnreachableError,
        UploadFailed.
        """
        content = await open_content(source, size, tag=tag, sha256=sha256, identify=identify)
        request = frames.Open(
            disposition,
            content.size,
            name,
            tag=content.tag,
            sha256=content.sha256,
            content_type=metadata.content_type,
            external_id=metadata.external_id,
            original_name=metadata.original_name,
        )
        patience = self._patience()
        options = TransferOptions(self._chunk_form, replace)
        backoff = Backoff(self._random)

        def progressed() -> None:
            self._has_progressed = True
            for each in (patience.progressed, backoff.reset, self._backoff.reset):
                each()

        transfer = Transfer(content, request, options, progressed, on_progress)
        return await self._persist(transfer, patience, backoff)

    async def status(self, name: str) -> frames.Status:
        """How far the server is with a name; state NONE where it knows none. Raises UploadFailed, UnreachableError."""
        status = await self._persist(Question(name), self._patience(), Backoff(self._random))
        self._backoff.reset()
        return status

    def _patience(self) -> Patience:
        return Patience(self._attempts_max, self._deadline_s, self._timing.clock)

    async def _persist(self, work: Work[Answer], patience: Patience, backoff: Backoff) -> Answer:
        while True:
            try:
                return await work.run(await self._linked())
            except LinkOver as over:
                ending = over.ending
                if ending.final:
                    raise upload_failure(ending.code, ending.detail, ending.action) from None
                patience.interrupted(ending.detail, self._not_before - self._timing.clock())
            except StreamOver as over:
                wait_s = await self._obey(over.error, work, backoff)
                patience.interrupted(explain(over.error.code, over.error.text), wait_s)
                await self._timing.sleep(wait_s)

    async def _obey(self, error: frames.Error, work: Work[Answer], backoff: Backoff) -> float:
        """Do what an ERROR of a stream asks for; seconds to wait before the next try. Raises UploadFailed."""
        match error.action:
            case Action.WAIT if error.wait_ms:
                return error.wait_ms / 1000
            case Action.WAIT | Action.REOPEN | Action.SEND_AGAIN:
                return backoff.next_s()
            case Action.OPEN_ANEW if work.open_anew():
                return 0.0
            case Action.REAUTHENTICATE if self._credentials.discard(refused=False):
                await self._hang_up()
                return backoff.next_s()
        raise upload_failure(error.code, explain(error.code, error.text), error.action)

    async def _linked(self) -> Link:
        """The connection, made anew where there is none; one attempt serves all who wait. Raises LinkOver."""
        if self._closed:
            raise RuntimeError("this Uplink is closed")
        if self._attempt is None:
            if self._link is not None and self._link.ending is None:
                return self._link
            self._attempt = asyncio.create_task(self._relink())
            self._attempt.add_done_callback(self._attempted)
        return await asyncio.shield(self._attempt)

    def _attempted(self, attempt: asyncio.Task[Link]) -> None:
        self._attempt = None
        if not attempt.cancelled():
            # Looked at, so that an attempt for which nobody waits any more leaves no warning.
            attempt.exception()

    async def _relink(self) -> Link:
        await self._hang_up()
        if (wait_s := self._not_before - self._timing.clock()) > 0:
            await self._timing.sleep(wait_s)
        try:
            link, kind = await self._establish()
        except ssl.SSLCertVerificationError as error:
            detail = f"{self._place} is not trusted: {error.verify_message}"
            raise LinkOver(self._judge(Ending(detail, Action.GIVE_UP))) from error
        except TimeoutError as error:
            detail = f"{self._place} did not answer within {self._connect_timeout_s:g} s"
            raise LinkOver(self._judge(Ending(detail))) from error
        except OSError as error:
            raise LinkOver(self._judge(Ending(f"{self._place} cannot be reached: {error}"))) from error
        except CredentialError as error:
            raise LinkOver(self._judge(Ending(f"no credential can be had: {error}"))) from error
        self._link, self._running = link, asyncio.create_task(link.run())
        if self._features is None:
            await link.welcomed()
            self._features = link.features
        elif kind is not CredentialKind.TOKEN:
            await link.proven()
        return link

    async def _establish(self) -> tuple[Link, CredentialKind]:
        offer = await self._credentials.offer()
        hello = frames.Hello(
            credential=offer.kind,
            features=self._features_asked,
            frame_bytes_max=CONTROL_FRAME_BYTES_MAX,
            ack_ranges_max=ACK_RANGES_MAX,
            token=offer.token,
            tenant=offer.tenant,
            device=offer.device,
            nonce=offer.nonce,
            agent=self._agent,
            agent_version=self._agent_version,
            last_end=self._last_end,
        )
        async with asyncio.timeout(self._connect_timeout_s):
            streams = await self._connect()
        self._last_end = 0
        connection = ClientConnection(hello, self._features_required)
        features = self._features or _NO_FEATURES
        link = Link(connection, streams, self._credentials, self._timing, self._judge, self._pace, features)
        return link, offer.kind

    async def _connect_tcp(self) -> tuple[StreamReader, StreamWriter]:
        # asyncio sets TCP_NODELAY on every TCP connection.
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls)

    async def _hang_up(self) -> None:
        """End the running connection, where there is one, and wait until it is closed."""
        running, self._running = self._running, None
        link, self._link = self._link, None
        if running is None or link is None:
            return
        if self._features is not None:
            self._features = link.features
        if link.ending is None:
            running.cancel()
        try:
            await asyncio.wait([running])
        finally:
            await link.close()
        if not running.cancelled():
            # Raises what should not have happened.
            running.result()

    def _judge(self, ending: Ending) -> Ending:
        """When the next connection may be tried, and whether it makes sense."""
        self._last_end = ending.code
        has_progressed, self._has_progressed = self._has_progressed, False
        match ending.action:
            case Action.GIVE_UP:
                return replace(ending, final=True)
            case Action.REAUTHENTICATE if not self._credentials.discard(refused=ending.refused):
                return replace(ending, final=True)
            case Action.WAIT if ending.wait_ms:
                wait_s = ending.wait_ms / 1000
            case Action.REOPEN if has_progressed and not ending.code:
                # The link broke, and it was good until then: most likely it is there again.
                wait_s = self._backoff.blink_s()
            case _:
                wait_s = self._backoff.next_s()
        self._not_before = self._timing.clock() + wait_s
        return ending

    @property
    def _place(self) -> str:
        return f"{self._host}:{self._port}"
