"""What a daemon finds when it starts: a directory in use, a newer catalog, and missing, unknown or damaged files."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from protocol.constants import Action, Disposition, UploadState
from protocol.errors import ErrorCode
from protocol.ranges import Span
from tests.support.ack_ledger import Ledger, Promise, StreamFailed, connected
from tests.support.daemon_process import DaemonFailed, DaemonProcess
from tests.support.device_tokens import device_token
from tests.support.waiting import until

FAILED = 1
"""The exit status of `uplinkd serve` when it cannot start."""

HALF_BYTES = 50_000
CONTENT = random.Random(3).randbytes(2 * HALF_BYTES)
SECOND_HALF = Span(HALF_BYTES, len(CONTENT))


async def half_sent(data_dir: Path, ledger: Ledger, name: str) -> tuple[str, Promise]:
    """Send the first half of a file and stop the daemon. Returns the device's token and the acknowledged upload."""
    async with DaemonProcess(data_dir) as daemon:
        token = await device_token(daemon, "device")
        async with connected(daemon.addresses.listen, token, ledger) as connection:
            stream = await connection.open(name, CONTENT)
            await connection.chunk(stream, 0, HALF_BYTES)
            promise = connection.promises[stream]
            await connection.until(lambda: promise.next_expected_byte == HALF_BYTES)
    return token, promise


async def failed_start(daemon: DaemonProcess) -> str:
    """Start a daemon, which must fail. Returns its output."""
    with pytest.raises(DaemonFailed) as failed:
        await daemon.__aenter__()
    assert await daemon.process.wait() == FAILED
    assert "Traceback" not in str(failed.value)
    return str(failed.value)


async def logged(daemon: DaemonProcess, text: str) -> str:
    """Wait for a line with `text` in the daemon's log and return it."""
    await until(lambda: any(text in line for line in daemon.log))
    return next(line for line in daemon.log if text in line)


async def test_a_directory_that_another_daemon_owns_is_left_alone(tmp_path: Path) -> None:
    ledger = Ledger()
    async with DaemonProcess(tmp_path / "data") as daemon:
        output = await failed_start(DaemonProcess(tmp_path / "data"))
        assert f"another uplinkd owns {tmp_path / 'data'}" in output
        # The owner does not notice.
        token = await device_token(daemon, "device")
        async with connected(daemon.addresses.listen, token, ledger) as connection:
            await connection.upload("file", CONTENT, HALF_BYTES)
    ledger.check(tmp_path / "data")


async def test_a_killed_daemon_releases_its_lock(tmp_path: Path) -> None:
    async with DaemonProcess(tmp_path / "data") as daemon:
        await daemon.kill()
    async with DaemonProcess(tmp_path / "data") as daemon:
        assert await daemon.stop() == 0


async def test_a_newer_catalog_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with DaemonProcess(data_dir):
        pass
    with closing(sqlite3.connect(data_dir / "catalog.sqlite")) as catalog:
        catalog.execute("PRAGMA user_version = 99")
        catalog.commit()
    before = (data_dir / "catalog.sqlite").read_bytes()
    output = await failed_start(DaemonProcess(data_dir))
    assert "schema version 99" in output
    assert "run the newer program" in output
    assert (data_dir / "catalog.sqlite").read_bytes() == before


async def test_an_upload_whose_file_is_missing_is_reported_and_the_file_is_not_recreated(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    ledger = Ledger()
    token, promise = await half_sent(data_dir, ledger, "file")
    promise.path(data_dir).unlink()
    async with DaemonProcess(data_dir) as daemon:
        line = await logged(daemon, "acknowledged bytes missing")
        assert f"{promise.upload_id:016x}" in line
        async with connected(daemon.addresses.listen, token, ledger) as connection:
            stream = await connection.open("file", CONTENT)
            with pytest.raises(StreamFailed) as failed:
                await connection.send(stream, [SECOND_HALF])
                await connection.finish(stream)
            assert failed.value.error.code == ErrorCode.STORAGE_FAILED
            assert not promise.path(data_dir).exists()
            assert promise.finished is None
            # Replacing the upload starts a new one, if the device still has the bytes.
            stream = await connection.open("file", CONTENT, disposition=Disposition.REPLACE)
            assert connection.opened[stream].upload_id != promise.upload_id
            await connection.send(stream, [Span(0, HALF_BYTES), SECOND_HALF])
            await connection.finish(stream)
            kept = connection.promises[stream].path(data_dir).read_bytes()
    assert kept == CONTENT


async def test_an_upload_whose_file_is_truncated_is_reported_and_the_file_gets_no_hole(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    ledger = Ledger()
    token, promise = await half_sent(data_dir, ledger, "file")
    cut = promise.path(data_dir).read_bytes()[:1000]
    promise.path(data_dir).write_bytes(cut)
    async with DaemonProcess(data_dir) as daemon:
        line = await logged(daemon, "acknowledged bytes missing")
        assert "1000 bytes" in line
        async with connected(daemon.addresses.listen, token, ledger) as connection:
            stream = await connection.open("file", CONTENT)
            with pytest.raises(StreamFailed) as failed:
                await connection.send(stream, [SECOND_HALF])
                await connection.finish(stream)
            assert failed.value.error.code == ErrorCode.STORAGE_FAILED
            assert failed.value.error.action == Action.WAIT
    assert promise.path(data_dir).read_bytes() == cut


async def test_files_unknown_to_the_catalog_survive(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with DaemonProcess(data_dir):
        pass
    orphan = data_dir / "files" / "2a" / f"{0x2A:016x}"
    stranger = data_dir / "files" / "00" / "notes.txt"
    for path in (orphan, stranger):
        path.write_bytes(CONTENT)
    async with DaemonProcess(data_dir) as daemon:
        await logged(daemon, "recovery done")
        await daemon.command("cleanup")
    held = [path for path in data_dir.rglob("*") if path.is_file() and path.name in {orphan.name, stranger.name}]
    assert sorted(path.name for path in held) == sorted([orphan.name, stranger.name])
    assert all(path.read_bytes() == CONTENT for path in held)


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_flipped_byte_is_found(tmp_path: Path, is_running: bool) -> None:
    data_dir = tmp_path / "data"
    ledger = Ledger()
    async with DaemonProcess(data_dir) as daemon:
        token = await device_token(daemon, "device")
        async with connected(daemon.addresses.listen, token, ledger) as connection:
            damaged = await connection.upload("damaged", CONTENT, HALF_BYTES)
            intact = await connection.upload("intact", CONTENT, HALF_BYTES)
        await daemon.command("verify")
        with damaged.path(data_dir).open("r+b") as file:
            file.seek(HALF_BYTES)
            file.write(bytes([CONTENT[HALF_BYTES] ^ 1]))
        if not is_running:
            await daemon.stop()
        with pytest.raises(DaemonFailed, match="gave 4") as failed:
            await daemon.command("verify", "--quiet")
    # The daemon's log, which names both, follows the command's output.
    output, _, _ = str(failed.value).partition('\n  {"timestamp"')
    assert f"{damaged.upload_id:016x}" in output
    assert f"{intact.upload_id:016x}" not in output


async def test_complete_and_unfinished_uploads_keep_their_state_over_a_restart(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    ledger = Ledger()
    token, promise = await half_sent(data_dir, ledger, "half")
    async with DaemonProcess(data_dir) as daemon, connected(daemon.addresses.listen, token, ledger) as connection:
        whole = await connection.upload("whole", CONTENT, HALF_BYTES)
    async with DaemonProcess(data_dir) as daemon, connected(daemon.addresses.listen, token, ledger) as connection:
        again = await connection.open("whole", CONTENT)
        assert connection.opened[again].state is UploadState.COMPLETE
        assert connection.opened[again].upload_id == whole.upload_id
        assert (await connection.upload("half", CONTENT, HALF_BYTES)).upload_id == promise.upload_id
    ledger.check(data_dir)
