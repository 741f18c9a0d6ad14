"""One device's connection: the protocol's events become uploads. Results go back to the device through stream.py."""

import logging
import math
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TypeAlias

from structlog.stdlib import BoundLogger

from daemon.adapters.clock import Clock
from daemon.adapters.entropy import Entropy
from daemon.catalog.interface import Catalog, CatalogFailed
from daemon.catalog.records import OpenResult
from daemon.identity.gate import Admitted, Denied, Gate
from daemon.ingest.admission import Refusal
from daemon.ingest.live_upload import LiveUpload
from daemon.ingest.uploads import Uploads
from daemon.tasks import Tasks
from daemon.tcp.handshake import Handshake, SessionPolicy, refresh
from daemon.tcp.stream import DeviceStream, Wire
from daemon.tcp.translation import expires_s, open_request, opened, opened_complete, status, wire_size
from daemon.telemetry.metrics import Metrics
from protocol import events, frames
from protocol.constants import CredentialKind
from protocol.errors import ErrorCode
from protocol.frame_buffer import Lease
from protocol.naming import is_name
from protocol.server import ServerConnection
from protocol.state import ConnectionState

Request: TypeAlias = events.OpenRequested | events.FinishRequested | events.AbortRequested | events.QueryReceived
"""What a device must have the right to ask for."""


@dataclass(frozen=True, slots=True)
class Services:
    """What all sessions share."""

    uploads: Uploads
    catalog: Catalog
    gate: Gate
    clock: Clock
    entropy: Entropy
    metrics: Metrics
    log: BoundLogger
    tasks: Tasks


class Session:
    """What one connection means. `now` arguments are monotonic seconds."""

    __slots__ = (
        "_agent",
        "_expired_s",
        "_handshake",
        "_kept",
        "_peer",
        "_policy",
        "_ranges_max",
        "_services",
        "_streams",
        "_tasks_running",
        "admitted",
        "connection",
        "connection_id",
        "credential",
        "is_closed",
        "metrics",
        "wire",
    )

    def __init__(
        self, connection: ServerConnection, wire: Wire, services: Services, policy: SessionPolicy, peer: str
    ) -> None:
        """`peer` is the device's address and port as the logs show them."""
        self.connection = connection
        self.wire = wire
        self.metrics = services.metrics
        self.connection_id = int.from_bytes(services.entropy.bytes(8), "big")
        self.admitted: Admitted | None = None
        self.credential: CredentialKind | None = None
        self.is_closed = False
        self._services = services
        self._policy = policy
        self._peer = peer
        self._agent: tuple[str | None, str | None] = (None, None)
        self._streams: dict[int, DeviceStream] = {}
        self._handshake: Handshake | None = None
        self._ranges_max = 0
        self._expired_s: float | None = None
        self._kept: list[Request] | None = None
        self._tasks_running = 0

    def receive(self, chunks: events.ChunksReceived, lease: Lease) -> None:
        """Take chunks, whose data is valid until `lease` is released."""
        count = chunks.end - chunks.start
        self.metrics.received_bytes[chunks.checksum] += count
        self.metrics.received_chunks[chunks.checksum] += chunks.count
        stream = self._streams.get(chunks.stream)
        if stream is not None and stream.upload is not None:
            self._services.uploads.receive(stream.upload, chunks, lease)
        else:
            lease.release()

    def handle(self, event: events.ServerEvent) -> None:
        """Do what an event other than ChunksReceived asks for."""
        match event:
            case events.OpenRequested() | events.FinishRequested() | events.AbortRequested() | events.QueryReceived():
                self._request(event)
            case events.ChunkRefused(_, code):
                self.metrics.nacks[code] += 1
            case _:
                self._handle_connection(event)

    def _request(self, request: Request) -> None:
        """Carry a request out, or keep it until REFRESH if the credential's time is over. PROTOCOL.md §13."""
        self._check_rights(self._services.clock.monotonic_s())
        if self.connection.state is ConnectionState.EXPIRED:
            self._kept = [*(self._kept or ()), request]
            return
        if self.connection.state is ConnectionState.CLOSING:
            return
        match request:
            case events.OpenRequested(number, frame):
                self._streams[number] = DeviceStream(self, number)
                self._spawn(self._open(number, frame))
            case events.FinishRequested(number, finish):
                if (stream := self._streams.get(number)) is not None and stream.upload is not None:
                    self._services.uploads.finish(stream.upload, finish.size, finish.crc32c, finish.sha256)
            case events.AbortRequested(number):
                self._spawn(self._abort(number))
            case events.QueryReceived(number, name):
                self._spawn(self._query(number, name))

    def _handle_connection(self, event: events.ServerEvent) -> None:
        match event:
            case events.HelloReceived():
                self._greet(event)
            case events.ProofReceived(proof):
                self._spawn(self._check_proof(proof), is_request=False)
            case events.TokenOffered(token):
                self._refresh(token)
            case events.StreamFailed(number, code, detail):
                self.metrics.errors[code] += 1
                self.logger.info("stream failed", stream=number, code=code.name, detail=detail)
                self._detach(number)
            case events.ConnectionFailed(code, detail):
                self._failed(code, detail)

    def check_time(self, now: float) -> None:
        """Look at expiry and revocation, at `deadline` and about once a second. PROTOCOL.md §13."""
        self._check_rights(now)
        if self._expired_s is not None and now - self._expired_s >= self._policy.grace_s:
            self.connection.fail(ErrorCode.TOKEN_EXPIRED, "the token's time is over and no REFRESH came")

    def deadline(self, now: float) -> float:
        """When `check_time` has something to do: at the end of the credential's time, or of the grace."""
        if self._expired_s is not None:
            return self._expired_s + self._policy.grace_s
        if self.admitted is None or self.admitted.expires_ms is None:
            return math.inf
        return now + (self.admitted.expires_ms - self._services.clock.wall_ms()) / 1000

    def _check_rights(self, now: float) -> None:
        admitted = self.admitted
        if admitted is None or self.connection.state is ConnectionState.CLOSING:
            return
        if (denied := self._services.gate.revoked(admitted)) is not None:
            self.connection.fail(denied.code, denied.detail)
        elif self._expired_s is None and admitted.is_expired(self._services.clock.wall_ms()):
            self._expired_s = now
            self.connection.expire()

    def closed(self) -> None:
        """The transport is gone. What was received still becomes durable."""
        self.is_closed = True
        for number in list(self._streams):
            self._detach(number)

    @property
    def has_uploads(self) -> bool:
        """Whether a stream is open."""
        return bool(self._streams)

    @property
    def is_quiet(self) -> bool:
        """Nothing that was received waits for an answer."""
        return not self._tasks_running and not self.connection.is_held and not self.connection.streams.has_work

    @property
    def logger(self) -> BoundLogger:
        """A logger that names the connection and, once it is known, the device."""
        # Made for each line: kept, it would be a tenth of an idle connection's memory.
        agent, agent_version = self._agent
        log = self._services.log.bind(
            connection=f"{self.connection_id:016x}", peer=self._peer, agent=agent, agent_version=agent_version
        )
        admitted = self.admitted
        return log if admitted is None else log.bind(tenant=admitted.tenant, device=admitted.device)

    @property
    def _debug_enabled(self) -> bool:
        """Whether each connection and upload gets lines in the log. Without it they are not even made."""
        return self._services.log.isEnabledFor(logging.DEBUG)

    def ended(self, number: int) -> None:
        """The stream has no upload any more."""
        self._streams.pop(number, None)

    def fail_stream(self, number: int, code: ErrorCode, detail: str) -> None:
        """End one stream with an ERROR."""
        self.metrics.errors[code] += 1
        self.logger.info("stream failed", stream=number, code=code.name, detail=detail)
        self.connection.fail_stream(number, code, detail)

    # The handshake.

    def _greet(self, received: events.HelloReceived) -> None:
        hello = received.hello
        self.credential = CredentialKind(hello.credential)
        self._ranges_max = hello.ack_ranges_max
        if hello.agent is not None or hello.agent_version is not None:
            self._agent = (hello.agent, hello.agent_version)
        services = self._services
        self._handshake = Handshake(self.connection, received, services.gate, self._policy.tenant_default)
        if self._handshake.last_end is not None:
            self.logger.info("device reports its last end", code=self._handshake.last_end)
        verdict = self._handshake.start(services.entropy)
        if verdict is not None:
            self._decide(self._handshake, verdict)

    async def _check_proof(self, proof: bytes) -> None:
        handshake = self._handshake
        if handshake is None:
            raise ValueError("a proof was let through before a HELLO")
        try:
            verdict = await handshake.check(proof)
        except CatalogFailed as error:
            self.logger.warning("catalog failed at PROOF", error=str(error))
            verdict = Denied(ErrorCode.INTERNAL, "the server's catalog does not answer")
        if not self._is_over:
            self._decide(handshake, verdict)

    def _decide(self, handshake: Handshake, verdict: Admitted | Denied) -> None:
        if isinstance(verdict, Denied):
            self.connection.fail(verdict.code, verdict.detail)
            return
        # Proof first, then a place: strangers cannot take the places of those who can prove themselves.
        if (turned := self.wire.admit(verdict.tenant, verdict.device)) is not None:
            self.connection.fail(turned.code, turned.detail)
            return
        self._handshake = None
        self.admitted = verdict
        self.connection.owner = (verdict.tenant, verdict.device)
        self.metrics.handshakes[self.credential, None] += 1
        if self._debug_enabled:
            self.logger.debug("device let in")
        handshake.welcome(verdict, self._policy, self.connection_id, self._services.clock.wall_ms())

    def _refresh(self, token: str) -> None:
        verdict = refresh(self._services.gate, self.admitted, token)
        if isinstance(verdict, Denied):
            self.connection.fail(verdict.code, verdict.detail)
            return
        self.admitted = verdict
        self._expired_s = None
        self.connection.refreshed(verdict.authority_s(self._services.clock.wall_ms()))
        kept, self._kept = self._kept or (), None
        for request in kept:
            self._request(request)

    # Uploads.

    async def _open(self, number: int, request: frames.Open) -> None:
        admitted = self.admitted
        stream = self._streams.get(number)
        if admitted is None or stream is None:
            return
        try:
            answer = await self._services.uploads.open(open_request(admitted.tenant, admitted.device, request), stream)
        except CatalogFailed as error:
            code = ErrorCode.DISK_FULL if error.disk_full else ErrorCode.STORAGE_FAILED
            answer = Refusal(code, "the server's catalog does not answer; nothing acknowledged is lost")
            self.logger.warning("catalog failed at OPEN", error=str(error))
        if isinstance(answer, Refusal):
            self.ended(number)
            if not self._is_over:
                self.fail_stream(number, answer.code, answer.detail)
            return
        result, upload = answer
        stream.upload = upload
        if self._is_over:
            if upload is not None:
                self._services.uploads.detach(upload, stream)
        elif upload is None or upload.listener is stream:
            self._answer_open(number, result, upload)

    def _answer_open(self, number: int, result: OpenResult, upload: LiveUpload | None) -> None:
        record = result.upload
        if record is None:
            raise ValueError(f"the catalog answered {result.outcome} without an upload")
        if upload is None:
            self.ended(number)
            answer = opened_complete(record, self._policy.expiry, self._services.clock.wall_ms())
        else:
            # The upload does not expire while the stream is open, so the device gets its whole time.
            left_s = expires_s(record, self._policy.expiry, record.updated_ms)
            answer = opened(upload, result.previous, left_s, self._ranges_max)
        if self._debug_enabled:
            self.logger.debug("upload opened", upload=f"{record.id:016x}", stream=number, outcome=result.outcome.value)
        self.connection.opened(number, answer, wire_size(record))

    async def _abort(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.upload is None or stream.upload.listener is not stream:
            # The upload has ended or was taken over, so it is not this stream's to abort.
            return
        try:
            await self._services.uploads.abort(stream.upload)
        except CatalogFailed as error:
            self.logger.warning("catalog failed at ABORT", error=str(error))
            self.ended(number)
            if not self._is_over:
                self.fail_stream(number, ErrorCode.STORAGE_FAILED, "the server's catalog does not answer")

    async def _query(self, number: int, name: str) -> None:
        admitted = self.admitted
        if admitted is None:
            return
        record = None
        try:
            # Nothing is known under an invalid name, so it is not looked up.
            if is_name(name):
                record = await self._services.catalog.find(admitted.tenant, admitted.device, name)
        except CatalogFailed as error:
            # A QUERY opens no stream: the device would take an ERROR on its number for another stream's.
            self.logger.warning("catalog failed at QUERY", error=str(error))
            self.connection.fail(ErrorCode.INTERNAL, "the server's catalog does not answer")
        else:
            now_ms = self._services.clock.wall_ms()
            self.connection.send(number, status(record, self._policy.expiry, now_ms, self._ranges_max))

    def _detach(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None and stream.upload is not None:
            self._services.uploads.detach(stream.upload, stream)

    def _failed(self, code: ErrorCode, detail: str) -> None:
        self.metrics.errors[code] += 1
        if self.admitted is None:
            self.metrics.handshakes[self.credential, code] += 1
        self.logger.info("connection failed", code=code.name, detail=detail)
        for number in list(self._streams):
            self._detach(number)

    def _spawn(self, work: Coroutine[None, None, None], *, is_request: bool = True) -> None:
        self._tasks_running += 1
        self._services.tasks.spawn(self._work(work, is_request), self._broke)

    async def _work(self, work: Coroutine[None, None, None], is_request: bool) -> None:
        try:
            await work
        finally:
            self._tasks_running -= 1
            if is_request:
                self.connection.answered()
        self.wire.changed()

    def _broke(self, _error: BaseException) -> None:
        self.connection.fail(ErrorCode.INTERNAL, "the server failed in a way it did not foresee")
        self.wire.changed()

    @property
    def _is_over(self) -> bool:
        """The transport is gone, or the last words are queued: answers have nowhere to go."""
        return self.is_closed or self.connection.state is ConnectionState.CLOSING
