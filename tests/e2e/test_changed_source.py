"""A source that changes: the daemon never stores a mix of versions, and success is reported only for stored content."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from device.client import Uplink
from device.credentials import TokenCredentials
from device.exceptions import ContentChanged, SourceChanged, UplinkError
from device.report import UploadProgress
from device.transfer_source import HASHED_FIRST_BYTES_MAX
from protocol.constants import Disposition
from tests.support.scene import Scene, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL_BYTES = 40_000_001
LARGE_BYTES = HASHED_FIRST_BYTES_MAX + 1_000_003


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("changed") / "data") as running:
        yield running


@pytest.fixture(params=[SMALL_BYTES, LARGE_BYTES], ids=["small", "large"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.bin"
    path.write_bytes(random.Random(1).randbytes(request.param))
    return path


def overwrite(path: Path, *, same_time: bool) -> bytes:
    """Write other content of the same size, with the same modification time or a later one. Returns the content."""
    before = path.stat()
    other = random.Random(2).randbytes(before.st_size)
    path.write_bytes(other)
    later_ns = 0 if same_time else 1_000_000_000
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + later_ns))
    return other


def renamed(path: Path, prefix: str) -> Path:
    """Rename the file, so that its name on the server is unique."""
    return path.rename(path.with_name(f"{prefix}-{path.name}"))


def content(path: Path) -> bytes:
    return path.read_bytes()


def uplink(live: Scene) -> Uplink:
    return Uplink(*live.address, TokenCredentials(live.token("cam")))


async def send(live: Scene, path: Path, *, replace: bool = False) -> None:
    async with uplink(live) as connected:
        with path.open("rb") as source:
            await connected.send(source, path.name, replace=replace)


async def send_half(live: Scene, path: Path) -> None:
    """Cancel the upload in the middle."""
    half = asyncio.Event()

    def progressed(progress: UploadProgress) -> None:
        if progress.durable_bytes > progress.size // 4:
            half.set()

    async with uplink(live) as connected:
        with path.open("rb") as source:
            sending = asyncio.create_task(connected.send(source, path.name, on_progress=progressed))
            await half.wait()
            sending.cancel()
            await asyncio.wait([sending])
        assert sending.cancelled()


async def stored(live: Scene, name: str) -> bytes:
    return (await live.http.get(f"/v1/devices/cam/files/{name}/content", token=live.operator)).body


@pytest.mark.parametrize("same_time", [False, True])
async def test_other_content_under_a_known_name_is_an_error(live: Scene, file: Path, same_time: bool) -> None:
    await send(live, file, replace=True)
    before = content(file)
    other = overwrite(file, same_time=same_time)
    with pytest.raises(ContentChanged, match="replace=True"):
        await send(live, file)
    assert await stored(live, file.name) == before
    await send(live, file, replace=True)
    assert await stored(live, file.name) == other


@pytest.mark.parametrize("same_time", [False, True])
async def test_an_upload_resumed_after_a_change_fails_and_stores_no_mix(
    live: Scene, file: Path, same_time: bool
) -> None:
    path = renamed(file, f"resumed-{same_time}")
    await send_half(live, path)
    other = overwrite(path, same_time=same_time)
    with pytest.raises(UplinkError, match=r"CONTENT_CHANGED|DIGEST_MISMATCH"):
        await send(live, path)
    await send(live, path, replace=True)
    assert await stored(live, path.name) == other


async def test_a_file_written_while_it_is_sent_is_reported(live: Scene, file: Path) -> None:
    path = renamed(file, "written")
    changed = False

    def change(progress: UploadProgress) -> None:
        nonlocal changed
        if not changed:
            changed = True
            with path.open("r+b") as target:
                target.seek(path.stat().st_size // 2)
                target.write(b"written while it was being sent")
            os.utime(path, ns=(0, 0))

    async with uplink(live) as connected:
        with path.open("rb") as source, pytest.raises(SourceChanged, match="replace=True"):
            await connected.send(source, path.name, on_progress=change)
    await send(live, path, replace=True)
    assert await stored(live, path.name) == content(path)


async def test_an_unchanged_file_is_resumed_by_a_later_run(live: Scene, file: Path) -> None:
    path = renamed(file, "same")
    await send_half(live, path)
    async with uplink(live) as connected:
        with path.open("rb") as source:
            sent = await connected.send(source, path.name)
        with path.open("rb") as source:
            again = await connected.send(source, path.name)
    assert 0 < sent.sent_bytes < sent.size
    assert (again.upload_id, again.sent_bytes) == (sent.upload_id, 0)
    assert await stored(live, path.name) == content(path)


@pytest.mark.parametrize("replace", [False, True])
async def test_a_replacement_that_is_deleted_meanwhile_is_made_again_if_allowed(live: Scene, replace: bool) -> None:
    """The name stands for the earlier file again, of the same size and with nothing to compare."""
    old, new = b"A" * SMALL_BYTES, b"B" * SMALL_BYTES
    writers: list[asyncio.StreamWriter] = []
    is_cut, may_return = asyncio.Event(), asyncio.Event()

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if is_cut.is_set():
            await may_return.wait()
        reader, writer = await asyncio.open_connection(*live.address)
        writers.append(writer)
        return reader, writer

    def progressed(progress: UploadProgress) -> None:
        if progress.durable_bytes and not is_cut.is_set():
            is_cut.set()
            writers[-1].transport.abort()

    credentials = TokenCredentials(live.token("cam"))
    async with Uplink(*live.address, credentials, connect=connect) as connected:
        name = f"replaced-{replace}.bin"
        earlier = await connected.send(old, name, identify=False)
        sending = asyncio.create_task(
            connected.send(
                new,
                name,
                identify=False,
                disposition=Disposition.REPLACE,
                replace=replace,
                on_progress=progressed,
            )
        )
        await is_cut.wait()
        stored = {file_id for file_id, fields in (await live.stored()).items() if fields[1] == name}
        (replacement,) = stored - {f"{earlier.upload_id:016x}"}
        answer = await live.http.request("DELETE", f"/v1/files/{replacement}", token=live.operator)
        assert answer.status == 204
        may_return.set()
        if not replace:
            with pytest.raises(ContentChanged, match="did not keep the replacement"):
                await sending
            return
        sent = await sending
    assert f"{sent.upload_id:016x}" not in {replacement, f"{earlier.upload_id:016x}"}
    assert (await live.stored())[f"{sent.upload_id:016x}"][1] == name
