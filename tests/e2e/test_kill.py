"""A daemon that is killed at any moment keeps every byte that it acknowledged."""

import asyncio
import contextlib
import random
import secrets
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp

from protocol.ranges import Span
from tests.support.ack_ledger import Ledger, LinkLost, connected
from tests.support.daemon_process import DaemonProcess
from tests.support.deadlines import SCENE_S
from tests.support.device_tokens import device_token

KILLS = 20
DEVICES = ("camera", "logger", "gateway")
SIZES = Span(1, 3 * 1024 * 1024)
CHUNKS = Span(1000, 64 * 1024)

SETTINGS = {"LIMITS__CHUNK_BYTES_MAX": str(64 * 1024), "LIMITS__WINDOW_BYTES": str(256 * 1024)}
"""The window is much smaller than a file, so that most of a file is acknowledged long before it is finished."""

ACKS_MAX = 80
"""Each kill comes after fewer acknowledgements than this: during a handshake, during an upload, or between two."""


class Sender:
    """A device that uploads one file after another, however often the daemon dies."""

    def __init__(self, device: str, token: str, ledger: Ledger, seed: int) -> None:
        self._device = device
        self.token = token
        self._ledger = ledger
        self._rng = random.Random(seed)
        self._number = 0
        self._content = self._new_content()
        self.finished: list[tuple[str, int, bytes]] = []

    async def send(self, address: tuple[str, int], files_more: int | None = None) -> None:
        """Upload until the link is lost or `files_more` more files are finished."""
        wanted = None if files_more is None else len(self.finished) + files_more
        async with connected(address, self.token, self._ledger) as connection:
            while wanted is None or len(self.finished) < wanted:
                name = f"{self._device}/{self._number}"
                chunk_bytes = self._rng.randrange(*CHUNKS)
                promise = await connection.upload(name, self._content, chunk_bytes, self._shuffled)
                self.finished.append((name, promise.upload_id, self._content))
                self._number += 1
                self._content = self._new_content()

    def _new_content(self) -> bytes:
        return self._rng.randbytes(self._rng.randrange(*SIZES))

    def _shuffled(self, spans: list[Span]) -> list[Span]:
        """Shuffle in small groups, so that ranges beyond N come and go."""
        shuffled = []
        for first in range(0, len(spans), 4):
            group = spans[first : first + 4]
            self._rng.shuffle(group)
            shuffled += group
        return shuffled


def check_catalog(data_dir: Path, copy: Path) -> None:
    """Check a copy of the catalog, since opening the original would already recover it."""
    copy.mkdir()
    for path in data_dir.glob("catalog.sqlite*"):
        shutil.copy(path, copy)
    with closing(sqlite3.connect(copy / "catalog.sqlite")) as catalog:
        assert catalog.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    shutil.rmtree(copy)


@asynccontextmanager
async def sending(senders: list[Sender], address: tuple[str, int]) -> AsyncIterator[None]:
    """Let the devices send during the block, until the daemon is gone. Any other failure of a device ends the block."""

    async def until_lost(sender: Sender) -> None:
        with contextlib.suppress(LinkLost):
            await sender.send(address)

    async with asyncio.TaskGroup() as group:
        for each in senders:
            group.create_task(until_lost(each))
        yield


async def kill_at_random(daemon: DaemonProcess, senders: list[Sender], ledger: Ledger, rng: random.Random) -> None:
    """Let the devices send, and kill the daemon after some acknowledgements, at a random point of its cycle."""
    acks_before_kill = ledger.acks + rng.randrange(ACKS_MAX)
    async with sending(senders, daemon.addresses.listen):
        await ledger.until(acks_before_kill)
        await asyncio.sleep(rng.uniform(0, 0.02))
        assert await daemon.kill() < 0


async def test_nothing_acknowledged_is_lost_by_twenty_kills(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    data_dir = tmp_path / "data"
    ledger = Ledger()
    async with asyncio.timeout(SCENE_S):
        async with DaemonProcess(data_dir, SETTINGS) as daemon:
            tokens = await asyncio.gather(*(device_token(daemon, device) for device in DEVICES))
        senders = [
            Sender(device, token, ledger, rng.getrandbits(32)) for device, token in zip(DEVICES, tokens, strict=True)
        ]
        for kill in range(KILLS):
            async with DaemonProcess(data_dir, SETTINGS) as daemon:
                await kill_at_random(daemon, senders, ledger, rng)
            ledger.check(data_dir)
            check_catalog(data_dir, tmp_path / f"catalog-{kill}")
        async with DaemonProcess(data_dir, SETTINGS) as daemon:
            await asyncio.gather(*(each.send(daemon.addresses.listen, files_more=1) for each in senders))
            await check_downloads(daemon, senders)
            assert "ok" in await daemon.command("verify")
            assert await daemon.stop() == 0
        ledger.check(data_dir)
        assert ledger.resumes, "no kill came during an upload"


async def check_downloads(daemon: DaemonProcess, senders: list[Sender]) -> None:
    """Every finished file is served as it was sent, however many kills came after it."""
    host, port = daemon.addresses.http
    for sender in senders:
        headers = {"Authorization": f"Bearer {sender.token}"}
        async with aiohttp.ClientSession(f"http://{host}:{port}", headers=headers) as http:
            for name, upload_id, content in sender.finished:
                async with http.get(f"/v1/files/{upload_id:016x}/content") as answer:
                    assert answer.status == 200, name
                    assert await answer.read() == content, name
