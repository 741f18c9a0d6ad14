"""A real daemon with devices, an operator, and a bystander whose upload must not be disturbed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import jwt
from yarl import URL

from protocol import frames
from protocol.handshake import read_secret
from tests.support.daemon_process import DaemonProcess
from tests.support.openapi_contract import CheckingClient
from tests.support.raw_device import Wire, open_request
from tests.support.waiting import until

HOUR_S = 3600

PIECE = b"bystander"

Stored = Mapping[str, tuple[object, ...]]
"""The stored files, by id: device, name, state, size, next expected byte, ranges, and bytes on disk."""


@dataclass(slots=True)
class Scene:
    """The daemon with its devices and operators. An issuer with the daemon's secret makes their tokens."""

    daemon: DaemonProcess
    data_dir: Path
    session: aiohttp.ClientSession

    @property
    def address(self) -> tuple[str, int]:
        """Where devices connect."""
        return self.daemon.addresses.listen

    @property
    def http(self) -> CheckingClient:
        """A client of the control plane that checks every answer against the API's description."""
        host, port = self.daemon.addresses.http
        return CheckingClient(self.session, URL(f"http://{host}:{port}"))

    def token(self, device: str, **claims: object) -> str:
        """A device's token. `claims` replace those of a valid token; None leaves a claim out."""
        now_s = int(time.time())
        payload = {"iss": "uplinkd", "aud": "uplinkd", "sub": device, "exp": now_s + HOUR_S} | claims
        return jwt.encode({name: value for name, value in payload.items() if value is not None}, self.secret, "HS256")

    @property
    def secret(self) -> bytes:
        """The daemon's own secret, as in its file."""
        return read_secret((self.data_dir / "secret").read_text())

    @property
    def operator(self) -> str:
        """An operator's token that may do everything."""
        return self.token("operator", role="operator", scope="read delete admin")

    async def admitted(self, device: str) -> Wire:
        """A device after WELCOME."""
        return await Wire.admitted(self.address, self.token(device))

    async def stored(self) -> Stored:
        """Everything that is stored, according to the control plane and the disk."""
        stored: dict[str, tuple[object, ...]] = {}
        answer = (await self.http.get("/v1/files?limit=1000", token=self.operator)).json()
        files = answer["files"]
        assert isinstance(files, list)
        assert answer["next_cursor"] is None
        sizes = {path.name: path.stat().st_size for path in (self.data_dir / "files").rglob("*") if path.is_file()}
        for file in files:
            fields = (file[key] for key in ("device", "name", "state", "size", "next_expected_byte"))
            ranges = tuple((each["start"], each["end"]) for each in file["ranges"])
            stored[file["id"]] = (*fields, ranges, sizes.pop(file["id"], 0))
        assert not sizes, f"files on disk without a record: {sizes}"
        return stored

    async def until_logged(self, holds: Callable[[str], object], since: int = 0) -> str:
        """Wait for a log line for which `holds` is true, after the first `since` lines. Raises TimeoutError."""

        def matching() -> list[str]:
            return [line for line in self.daemon.log[since:] if holds(line)]

        await until(matching)
        return matching()[0]


@asynccontextmanager
async def scene(
    data_dir: Path, settings: Mapping[str, str] = {}, wrapper: tuple[str, ...] = ()
) -> AsyncIterator[Scene]:
    """Start a daemon, with `wrapper` as DaemonProcess has it, and stop it by SIGTERM, which must succeed."""
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(DaemonProcess(data_dir, settings, wrapper))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Scene(daemon, data_dir, session)
        assert await daemon.stop() == 0
        assert not [line for line in daemon.log if '"level": "error"' in line or "Traceback" in line]


class Bystander:
    """A device with one continuous upload on one connection."""

    NAME = "bystander.log"

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.sent_bytes = 0

    @classmethod
    @asynccontextmanager
    async def at(cls, scene: Scene) -> AsyncIterator["Bystander"]:
        """Start the upload; at the end finish it, and check the whole file."""
        async with await scene.admitted("bystander") as wire:
            await wire.open(1, open_request(cls.NAME))
            bystander = cls(wire)
            yield bystander
            wire.say(frames.Finish(bystander.sent_bytes), 1)
            await wire.hear(frames.Finished, 1)
        path = f"/v1/devices/bystander/files/{cls.NAME}/content"
        assert (await scene.http.get(path, token=scene.operator)).body == PIECE * (bystander.sent_bytes // len(PIECE))

    async def go_on(self) -> None:
        """Send more, and wait for the acknowledgement."""
        await self._wire.upload(1, self.sent_bytes, PIECE)
        self.sent_bytes += len(PIECE)


@asynccontextmanager
async def undisturbed(scene: Scene, bystander: Bystander) -> AsyncIterator[None]:
    """Check that the block stores and loses nothing, and that other uploads continue before, during and after it."""
    before = await scene.stored()
    is_over = asyncio.Event()
    others = asyncio.create_task(_go_on(bystander, is_over))
    try:
        yield
    finally:
        is_over.set()
        await others
    assert _without(before, Bystander.NAME) == _without(await scene.stored(), Bystander.NAME)


async def _go_on(bystander: Bystander, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        await bystander.go_on()
    await bystander.go_on()


def _without(stored: Stored, name: str) -> Stored:
    return {key: value for key, value in stored.items() if value[1] != name}
