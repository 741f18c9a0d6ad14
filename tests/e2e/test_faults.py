"""A failing disk: the device gets an error, no acknowledged byte is lost, and the upload resumes."""

import random
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocol import frames
from protocol.constants import CHUNK_OVERHEAD_BYTES, Action
from protocol.errors import ErrorCode
from tests.support.ack_ledger import Connection, Ledger, LinkLost, Promise, StreamFailed, connected, spans
from tests.support.daemon_process import DaemonProcess
from tests.support.device_tokens import device_token
from tests.support.strace_injection import injected
from tests.support.systemd_machine import Unable

FILE_BYTES = 1_000_000
CHUNK_BYTES = 10_000
SETTINGS = {
    "LIMITS__CHUNK_BYTES_MAX": str(CHUNK_BYTES),
    "LIMITS__WINDOW_BYTES": str(4 * (CHUNK_BYTES + CHUNK_OVERHEAD_BYTES)),
}
"""A window of four chunks, so that a file takes many cycles."""

NAME = "log"

PWRITEV = "/^pwritev"
"""Python writes data with pwritev or pwritev2, depending on the system; SQLite uses pwrite64."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A daemon, and a device in the middle of an upload: some chunks are acknowledged."""

    daemon: DaemonProcess
    data_dir: Path
    ledger: Ledger
    token: str
    connection: Connection
    stream: int

    @property
    def promise(self) -> Promise:
        return self.connection.promises[self.stream]

    async def send_rest(self) -> None:
        """Send all missing chunks and finish. Raises StreamFailed, LinkLost."""
        await self.connection.send(self.stream, spans(self.promise, CHUNK_BYTES))
        await self.connection.finish(self.stream)

    async def send_until_error(self) -> frames.Error:
        """Continue the upload, which must fail. Returns the error."""
        with pytest.raises(StreamFailed) as failed:
            await self.send_rest()
        self.ledger.check(self.data_dir)
        return failed.value.error

    async def resume(self, address: tuple[str, int]) -> None:
        """Open the upload again, check that it resumes at the last acknowledgement, and complete it."""
        acknowledged, upload_id = self.promise.next_expected_byte, self.promise.upload_id
        async with connected(address, self.token, self.ledger) as connection:
            stream = await connection.open(NAME, self.promise.content)
            assert connection.opened[stream].upload_id == upload_id
            assert connection.opened[stream].next_expected_byte >= acknowledged
            await connection.send(stream, spans(connection.promises[stream], CHUNK_BYTES))
            await connection.finish(stream)
        self.ledger.check(self.data_dir)
        assert self.promise.path(self.data_dir).read_bytes() == self.promise.content


@asynccontextmanager
async def uploading(data_dir: Path, first_bytes: int) -> AsyncIterator[Scene]:
    """A scene in which `first_bytes` are acknowledged."""
    content = random.Random(first_bytes).randbytes(FILE_BYTES)
    ledger = Ledger()
    async with DaemonProcess(data_dir, SETTINGS) as daemon:
        token = await device_token(daemon, "device")
        async with connected(daemon.addresses.listen, token, ledger) as connection:
            stream = await connection.open(NAME, content)
            promise = connection.promises[stream]
            await connection.send(stream, [each for each in spans(promise, CHUNK_BYTES) if each.end <= first_bytes])
            await connection.until(lambda: promise.next_expected_byte == first_bytes)
            yield Scene(daemon, data_dir, ledger, token, connection, stream)


Place = Callable[[Scene], Path]


def data_file(scene: Scene) -> Path:
    return scene.promise.path(scene.data_dir)


def directory(scene: Scene) -> Path:
    return data_file(scene).parent


def catalog(scene: Scene) -> Path:
    return scene.data_dir / "catalog.sqlite-wal"


@pytest.mark.parametrize(
    ("place", "calls", "fault", "code"),
    [
        (data_file, PWRITEV, "error=EIO:when=3", ErrorCode.STORAGE_FAILED),
        (data_file, PWRITEV, "error=ENOSPC:when=3", ErrorCode.DISK_FULL),
        (data_file, "fdatasync", "error=EIO:when=1", ErrorCode.STORAGE_FAILED),
        (data_file, "fdatasync", "error=EIO:when=3", ErrorCode.STORAGE_FAILED),
        (data_file, "fdatasync", "error=ENOSPC:when=2", ErrorCode.DISK_FULL),
        (catalog, "fdatasync", "error=EIO:when=2", ErrorCode.STORAGE_FAILED),
        (catalog, "pwrite64", "error=EIO:when=3", ErrorCode.STORAGE_FAILED),
        (catalog, "pwrite64", "error=ENOSPC:when=3", ErrorCode.DISK_FULL),
    ],
)
async def test_a_fault_ends_the_stream_and_costs_no_acknowledged_byte(
    tmp_path: Path, place: Place, calls: str, fault: str, code: ErrorCode
) -> None:
    async with uploading(tmp_path / "data", 100_000) as scene:
        try:
            async with injected(scene.daemon.process.pid, place(scene), calls, fault):
                error = await scene.send_until_error()
        except Unable as reason:
            pytest.skip(str(reason))
        assert (error.code, error.action) == (code, Action.WAIT)
        assert error.wait_ms > 0
        await scene.resume(scene.daemon.addresses.listen)


@pytest.mark.parametrize(
    ("place", "calls", "first_bytes"),
    [(data_file, "fdatasync", 100_000), (catalog, "fdatasync", 100_000), (directory, "fsync", 0)],
)
async def test_nothing_is_acknowledged_while_syncs_fail(
    tmp_path: Path, place: Place, calls: str, first_bytes: int
) -> None:
    async with uploading(tmp_path / "data", first_bytes) as scene:
        try:
            async with injected(scene.daemon.process.pid, place(scene), calls, "error=EIO"):
                error = await scene.send_until_error()
        except Unable as reason:
            pytest.skip(str(reason))
        assert error.code == ErrorCode.STORAGE_FAILED
        assert scene.promise.next_expected_byte == first_bytes
        assert not scene.promise.beyond
        await scene.resume(scene.daemon.addresses.listen)


async def test_a_short_write_is_continued(tmp_path: Path) -> None:
    async with uploading(tmp_path / "data", 100_000) as scene:
        try:
            # The system call writes nothing and returns 0, the shortest of short writes.
            async with injected(scene.daemon.process.pid, data_file(scene), PWRITEV, "retval=0:when=2+3"):
                await scene.send_rest()
        except Unable as reason:
            pytest.skip(str(reason))
        scene.ledger.check(scene.data_dir)


async def test_a_short_write_that_cannot_continue_fails_the_stream(tmp_path: Path) -> None:
    async with uploading(tmp_path / "data", 100_000) as scene:
        pid = scene.daemon.process.pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        # The system writes up to the limit and refuses the rest.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (503_000, unlimited[1]))
        error = await scene.send_until_error()
        assert error.code == ErrorCode.STORAGE_FAILED
        assert 100_000 < scene.promise.next_expected_byte <= 503_000
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        await scene.resume(scene.daemon.addresses.listen)


@pytest.mark.parametrize(
    ("place", "calls", "when"),
    [(data_file, PWRITEV, 2), (data_file, "fdatasync", 2), (catalog, "pwrite64", 6), (catalog, "fdatasync", 2)],
)
async def test_a_kill_at_any_step_of_the_cycle_costs_no_acknowledged_byte(
    tmp_path: Path, place: Place, calls: str, when: int
) -> None:
    async with uploading(tmp_path / "data", 100_000) as scene:
        try:
            async with injected(scene.daemon.process.pid, place(scene), calls, f"signal=KILL:when={when}"):
                with pytest.raises(LinkLost):
                    await scene.send_rest()
        except Unable as reason:
            pytest.skip(str(reason))
        assert await scene.daemon.kill() < 0
        scene.ledger.check(scene.data_dir)
    async with DaemonProcess(tmp_path / "data", SETTINGS) as daemon:
        await scene.resume(daemon.addresses.listen)
