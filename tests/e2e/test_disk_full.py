"""A full disk: uploads wait, no acknowledged byte is lost, all else works, and uploads resume once there is space."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from protocol import frames
from protocol.constants import Action, UploadState
from protocol.errors import ErrorCode
from tests.support.ack_ledger import Connection, Ledger, Promise, StreamFailed, connected, spans
from tests.support.daemon_process import DaemonProcess
from tests.support.deadlines import SCENE_S
from tests.support.device_tokens import device_token
from tests.support.systemd_machine import Unable
from tests.support.volumes import small

MIB = 1024 * 1024
VOLUME_BYTES = 40 * MIB
FLOOR_BYTES = 8 * MIB
FIRST_BYTES = 8 * MIB
BALLAST_BYTES = 2 * MIB
WINDOW_BYTES = 4 * MIB
SMALL = b"a few bytes"


@dataclass(frozen=True, slots=True)
class Scene:
    """A daemon on a small disk. `camera` has a complete file; the device `bystander` only sends small ones."""

    disk: Path
    daemon: DaemonProcess
    ledger: Ledger
    tokens: dict[str, str]
    http: aiohttp.ClientSession
    first: Promise

    @property
    def data_dir(self) -> Path:
        return self.disk / "data"

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.disk)
        return found.f_bavail * found.f_frsize

    def connected(self, device: str) -> AbstractAsyncContextManager[Connection]:
        return connected(self.daemon.addresses.listen, self.tokens[device], self.ledger)

    async def until_ready_says(self, status: int) -> str:
        """Wait until /readyz has this status and return its body. The daemon measures the disk about once a second."""
        async with asyncio.timeout(SCENE_S):
            while True:
                async with self.http.get("/readyz") as answer:
                    if answer.status == status:
                        return await answer.text()
                await asyncio.sleep(0.05)

    async def check_reading(self) -> None:
        """Operators can still list and download."""
        async with self.http.get("/v1/files", params={"state": "complete"}) as answer:
            assert f"{self.first.upload_id:016x}" in {each["id"] for each in (await answer.json())["files"]}
        async with self.http.get(f"/v1/files/{self.first.upload_id:016x}/content") as answer:
            assert answer.status == 200
            assert await answer.read() == self.first.content

    async def delete_first(self) -> None:
        async with self.http.delete(f"/v1/files/{self.first.upload_id:016x}") as answer:
            assert answer.status == 204, await answer.text()
        del self.ledger.promises[self.first.upload_id]

    async def persist(self, name: str, content: bytes, declared: bool) -> None:
        """Open the upload again and again until it is finished, like a device but with shorter waits."""
        async with asyncio.timeout(SCENE_S), self.connected("camera") as connection:
            while True:
                try:
                    stream = await connection.open(name, content, declared=declared)
                    assert connection.opened[stream].state is UploadState.RECEIVING
                    await connection.send(stream, spans(connection.promises[stream], MIB))
                    await connection.finish(stream)
                except StreamFailed as failed:
                    check_must_wait(failed.error)
                    await asyncio.sleep(0.1)
                else:
                    break
        self.ledger.check(self.data_dir)


@asynccontextmanager
async def scene(directory: Path, floor_bytes: int) -> AsyncIterator[Scene]:
    settings = {"STORAGE__DISK_FREE_MIN_BYTES": str(floor_bytes), "LIMITS__WINDOW_BYTES": str(WINDOW_BYTES)}
    ledger = Ledger()
    try:
        async with (
            asyncio.timeout(SCENE_S),
            small(directory, VOLUME_BYTES) as disk,
            DaemonProcess(disk / "data", settings) as daemon,
        ):
            devices = ("camera", "bystander")
            tokens = dict(
                zip(devices, await asyncio.gather(*(device_token(daemon, each) for each in devices)), strict=True)
            )
            async with connected(daemon.addresses.listen, tokens["camera"], ledger) as connection:
                first = await connection.upload("first", random.Random(1).randbytes(FIRST_BYTES), MIB)
            host, port = daemon.addresses.http
            headers = {"Authorization": f"Bearer {tokens['camera']}"}
            async with aiohttp.ClientSession(f"http://{host}:{port}", headers=headers) as http:
                yield Scene(disk, daemon, ledger, tokens, http, first)
            await daemon.command("verify")
            assert await daemon.stop() == 0
    except Unable as reason:
        pytest.skip(str(reason))


def check_must_wait(error: frames.Error) -> None:
    assert (error.code, error.action) == (ErrorCode.DISK_FULL, Action.WAIT)
    assert error.wait_ms > 0


def fill(path: Path, size_bytes: int | None = None) -> None:
    """Take `size_bytes` of the disk, or all that is left, as another program would."""
    with path.open("wb", buffering=0) as file:
        left = size_bytes if size_bytes is not None else VOLUME_BYTES
        try:
            while left:
                left -= file.write(bytes(min(left, 4096)))
        except OSError:
            assert size_bytes is None


async def test_an_upload_that_cannot_fit_is_refused_at_once_and_others_continue(tmp_path: Path) -> None:
    async with scene(tmp_path, FLOOR_BYTES) as stage:
        large = bytes(stage.free_bytes - FLOOR_BYTES + MIB)
        async with stage.connected("camera") as connection:
            with pytest.raises(StreamFailed) as failed:
                await connection.open("large", large)
            check_must_wait(failed.value.error)
            # This connection and others still accept files that fit.
            await connection.upload("small", SMALL, MIB)
        async with stage.connected("bystander") as connection:
            await connection.upload("small", SMALL, MIB)
        await stage.check_reading()
        await stage.until_ready_says(200)
        stage.ledger.check(stage.data_dir)


async def test_an_upload_that_can_never_fit_is_given_up(tmp_path: Path) -> None:
    async with scene(tmp_path, FLOOR_BYTES) as stage, stage.connected("camera") as connection:
        with pytest.raises(StreamFailed) as failed:
            await connection.open("larger than the disk", bytes(VOLUME_BYTES - FLOOR_BYTES + 1))
        assert failed.value.error.code == ErrorCode.FILE_TOO_LARGE
        assert failed.value.error.action is Action.GIVE_UP


async def test_uploads_stop_at_the_minimum_of_free_space_and_resume_when_a_file_is_deleted(tmp_path: Path) -> None:
    async with scene(tmp_path, FLOOR_BYTES) as stage:
        usable_bytes = stage.free_bytes - FLOOR_BYTES
        content = random.Random(2).randbytes(usable_bytes + FIRST_BYTES - 2 * MIB)
        async with stage.connected("camera") as connection:
            stream = await connection.open("endless", content, declared=False)
            promise = connection.promises[stream]
            with pytest.raises(StreamFailed) as failed:
                await connection.send(stream, spans(promise, MIB))
                await connection.finish(stream)
            check_must_wait(failed.value.error)
        stage.ledger.check(stage.data_dir)
        assert promise.next_expected_byte > 0
        # Bytes that arrive between two measurements of the disk may go below the minimum.
        assert stage.free_bytes >= FLOOR_BYTES - WINDOW_BYTES
        await stage.check_reading()

        fill(stage.disk / "ballast", BALLAST_BYTES)
        assert "disk" in await stage.until_ready_says(503)
        async with stage.connected("bystander") as connection:
            with pytest.raises(StreamFailed) as failed:
                await connection.open("small too", SMALL)
            check_must_wait(failed.value.error)
        await stage.check_reading()

        await stage.delete_first()
        await stage.until_ready_says(200)
        (stage.disk / "ballast").unlink()
        await stage.persist("endless", content, declared=False)
        assert promise.finished is not None


async def test_a_disk_filled_by_another_program_costs_no_acknowledged_byte(tmp_path: Path) -> None:
    async with scene(tmp_path, 0) as stage:
        content = random.Random(3).randbytes(20 * MIB)
        async with stage.connected("camera") as connection:
            stream = await connection.open("large", content)
            promise = connection.promises[stream]
            chunks = spans(promise, MIB)
            await connection.send(stream, chunks[:5])
            await connection.until(lambda: promise.next_expected_byte == chunks[4].end)
            fill(stage.disk / "ballast")
            with pytest.raises(StreamFailed) as failed:
                await connection.send(stream, chunks[5:])
                await connection.finish(stream)
            check_must_wait(failed.value.error)
        stage.ledger.check(stage.data_dir)
        async with stage.connected("bystander") as connection:
            with pytest.raises(StreamFailed) as failed:
                await connection.upload("small", SMALL, MIB)
            check_must_wait(failed.value.error)
        await stage.check_reading()
        async with stage.http.get("/healthz") as answer:
            assert answer.status == 200

        (stage.disk / "ballast").unlink()
        await stage.persist("large", content, declared=True)
        assert promise.finished is not None
        async with stage.connected("bystander") as connection:
            await connection.upload("small", SMALL, MIB)
        stage.ledger.check(stage.data_dir)
