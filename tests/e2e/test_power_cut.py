"""After a power failure during uploads, every acknowledged byte is on the disk when it is mounted again."""

import asyncio
import contextlib
import random
import secrets
from pathlib import Path

import pytest

from tests.support.ack_ledger import Ledger, LinkLost, PromiseBroken, StreamFailed, connected
from tests.support.daemon_process import DaemonProcess
from tests.support.deadlines import SCENE_S
from tests.support.device_tokens import device_token
from tests.support.systemd_machine import Unable
from tests.support.volumes import Volume, journaled

CUTS = 3
DEVICES = 3
VOLUME_BYTES = 256 * 1024 * 1024
FILE_BYTES_MAX = 2 * 1024 * 1024
CHUNK_BYTES = 20_000
ACKS_MIN, ACKS_MAX = 10, 60

SETTINGS = {
    "LIMITS__CHUNK_BYTES_MAX": str(CHUNK_BYTES),
    "LIMITS__WINDOW_BYTES": str(8 * CHUNK_BYTES),
    "STORAGE__DISK_FREE_MIN_BYTES": "0",
}


class Sender:
    """A device that uploads one file after another, and resumes an upload that was interrupted."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self._name = name
        self._rng = rng
        self._number = 0
        self._content = b""

    async def send(self, address: tuple[str, int], token: str, ledger: Ledger, files: int | None = None) -> None:
        """Upload `files` files, or continue until the disk or the link fails."""
        async with connected(address, token, ledger) as connection:
            while files is None or files:
                self._content = self._content or self._rng.randbytes(self._rng.randrange(2, FILE_BYTES_MAX))
                await connection.upload(f"{self._name}/{self._number}", self._content, CHUNK_BYTES)
                self._number, self._content = self._number + 1, b""
                files = None if files is None else files - 1


async def cut_power_during_uploads(
    volume: Volume, daemon: DaemonProcess, token: str, senders: list[Sender], ledger: Ledger, rng: random.Random
) -> None:
    """Cut the power at a random moment, and mount the disk again once the daemon is gone."""

    async def until_it_fails(sender: Sender) -> None:
        with contextlib.suppress(StreamFailed, LinkLost):
            await sender.send(daemon.addresses.listen, token, ledger)

    async with asyncio.TaskGroup() as group:
        for sender in senders:
            group.create_task(until_it_fails(sender))
        await ledger.until(ledger.acks + rng.randint(ACKS_MIN, ACKS_MAX))
        await asyncio.sleep(rng.uniform(0, 0.01))
        # Without power no program runs. If the daemon continued, the dead file system could report success for a sync
        # in progress, and the daemon would acknowledge lost bytes. ACKs that it sent before this point must hold.
        await daemon.freeze()
        volume.cut_power()
        await daemon.kill()
    await volume.unmount()
    await volume.mount()


async def test_nothing_acknowledged_is_lost_by_power_cuts(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    ledger = Ledger()
    senders = [Sender(f"device-{number}", random.Random(rng.getrandbits(32))) for number in range(DEVICES)]
    token = ""
    try:
        async with asyncio.timeout(SCENE_S), journaled(tmp_path, VOLUME_BYTES) as volume:
            data_dir = volume.path / "data"
            for _ in range(CUTS):
                async with DaemonProcess(data_dir, SETTINGS) as daemon:
                    token = token or await device_token(daemon, "device")
                    await cut_power_during_uploads(volume, daemon, token, senders, ledger, rng)
                ledger.check(data_dir)
            async with DaemonProcess(data_dir, SETTINGS) as daemon:
                for sender in senders:
                    await sender.send(daemon.addresses.listen, token, ledger, files=1)
                await daemon.command("verify")
                assert await daemon.stop() == 0
            ledger.check(data_dir)
            await volume.unmount()
    except Unable as reason:
        pytest.skip(str(reason))


async def test_without_syncs_a_power_cut_does_lose_bytes(tmp_path: Path) -> None:
    """This shows that the power cut is real and the test above can fail."""
    rng = random.Random(7)
    ledger = Ledger()
    try:
        async with asyncio.timeout(SCENE_S), journaled(tmp_path, VOLUME_BYTES) as volume:
            data_dir = volume.path / "data"
            async with DaemonProcess(data_dir, SETTINGS | {"COMMIT__DURABILITY": "write"}) as daemon:
                token = await device_token(daemon, "device")
                await cut_power_during_uploads(volume, daemon, token, [Sender("device", rng)], ledger, rng)
            with pytest.raises(PromiseBroken):
                ledger.check(data_dir)
            await volume.unmount()
    except Unable as reason:
        pytest.skip(str(reason))
