"""Keeps one connection to a server: made when needed, and again with back-off after it broke. PROTOCOL.md §4, §12.2."""

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from device.backoff import Backoff
from device.credentials import Credentials
from device.exceptions import CredentialError, Ending, LinkOver
from device.link import Link
from device.pace import Pace
from device.timing import Timing
from protocol import frames
from protocol.client import ClientConnection
from protocol.constants import CONTROL_FRAME_BYTES_MAX, Action, CredentialKind, Feature

Connect = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]

ACK_RANGES_MAX = 16
"""Ranges in an ACK: as many as a few refusals leave within one window."""


@dataclass(frozen=True, slots=True)
class HelloFields:
    """What HELLO says besides the credential. A server without `features_required` is refused."""

    features: Feature
    features_required: Feature
    agent: str | None
    agent_version: str | None


class Connector:
    """The connection that all work shares. `place` names the server in messages."""

    def __init__(
        self,
        connect: Connect,
        place: str,
        hello: HelloFields,
        credentials: Credentials,
        timing: Timing,
        pace: Pace,
        random: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._place = place
        self._hello = hello
        self._credentials = credentials
        self._timing = timing
        self._pace = pace
        # Assumed until WELCOME arrives, so that OPEN need not wait for it; None if it has to wait.
        self._features = None if hello.features_required else hello.features
        self._backoff = Backoff(random)
        self._link: Link | None = None
        self._running: asyncio.Task[None] | None = None
        self._attempt: asyncio.Task[Link] | None = None
        self._not_before_s = timing.clock()
        self._last_end = 0
        self._has_progressed = False
        self._is_closed = False

    @property
    def wait_s(self) -> float:
        """How long until the next attempt may be made; 0 or less: now."""
        return self._not_before_s - self._timing.clock()

    def progressed(self) -> None:
        """More bytes became durable: the server and the link are good (R12.6, R12.9)."""
        self._has_progressed = True
        self._backoff.reset()

    async def connected(self) -> Link:
        """The connection, made now if there is none; one attempt serves all who wait. Raises LinkOver."""
        if self._is_closed:
            raise RuntimeError("this Uplink is closed")
        if self._attempt is None:
            if self._link is not None and self._link.ending is None:
                return self._link
            self._attempt = asyncio.create_task(self._reconnect())
            self._attempt.add_done_callback(self._attempt_ended)
        return await asyncio.shield(self._attempt)

    async def hang_up(self) -> None:
        """End the connection, if there is one, and wait until it is closed."""
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

    async def close(self) -> None:
        """Hang up for good."""
        self._is_closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        await self.hang_up()

    def _attempt_ended(self, attempt: asyncio.Task[Link]) -> None:
        self._attempt = None
        if not attempt.cancelled():
            # Mark the exception as retrieved: nobody may be waiting for this attempt any more.
            attempt.exception()

    async def _reconnect(self) -> Link:
        await self.hang_up()
        if (wait_s := self.wait_s) > 0:
            await self._timing.sleep(wait_s)
        try:
            link, kind = await self._establish()
        except ssl.SSLCertVerificationError as error:
            detail = f"{self._place} is not trusted: {error.verify_message}"
            raise LinkOver(self._ended(Ending(detail, Action.GIVE_UP))) from error
        except TimeoutError as error:
            detail = f"{self._place} did not answer within {self._timing.handshake_timeout_s:g} s"
            raise LinkOver(self._ended(Ending(detail))) from error
        except OSError as error:
            raise LinkOver(self._ended(Ending(f"{self._place} cannot be reached: {error}"))) from error
        except CredentialError as error:
            raise LinkOver(self._ended(Ending(f"there is no credential: {error}"))) from error
        self._link, self._running = link, asyncio.create_task(link.run())
        if self._features is None:
            await link.welcomed()
            self._features = link.features
        elif kind is not CredentialKind.TOKEN:
            await link.proof_sent()
        return link

    async def _establish(self) -> tuple[Link, CredentialKind]:
        offer = await self._credentials.offer()
        hello = frames.Hello(
            credential=offer.kind,
            features=self._hello.features,
            frame_bytes_max=CONTROL_FRAME_BYTES_MAX,
            ack_ranges_max=ACK_RANGES_MAX,
            token=offer.token,
            tenant=offer.tenant,
            device=offer.device,
            nonce=offer.nonce,
            agent=self._hello.agent,
            agent_version=self._hello.agent_version,
            last_end=self._last_end,
        )
        async with asyncio.timeout(self._timing.handshake_timeout_s):
            streams = await self._connect()
        self._last_end = 0
        connection = ClientConnection(hello, self._hello.features_required)
        features = self._features or Feature(0)
        link = Link(connection, streams, self._credentials, self._timing, self._ended, self._pace, features)
        return link, offer.kind

    def _ended(self, ending: Ending) -> Ending:
        """Decide when to connect again, and whether that makes sense."""
        self._last_end = ending.code
        has_progressed, self._has_progressed = self._has_progressed, False
        match ending.action:
            case Action.GIVE_UP:
                return replace(ending, final=True)
            case Action.REAUTHENTICATE if not self._credentials.discard(refused=ending.refused):
                return replace(ending, final=True)
        if ending.action is Action.REOPEN and has_progressed and not ending.code:
            # The link was good until it broke (R12.9): most likely it is there again.
            wait_s = self._backoff.quick_s()
        else:
            wait_s = self._backoff.after_s(ending.wait_ms)
        self._not_before_s = self._timing.clock() + wait_s
        return ending
