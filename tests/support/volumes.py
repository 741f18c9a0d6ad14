"""File systems for tests: small ones that fill up, and ones whose power can be cut. Root only."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.systemd_machine import Unable

GOING_DOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, the same as XFS_IOC_GOINGDOWN."""

NO_LOG_FLUSH = 2
"""As in a power cut: everything that is only in memory is lost, including the journal's."""


class Volume:
    """A mounted ext4 in a file."""

    def __init__(self, image: Path, path: Path) -> None:
        self._image = image
        self.path = path

    async def mount(self) -> None:
        """Raises Unable."""
        await _run("mount", "-o", "loop", str(self._image), str(self.path))

    async def unmount(self) -> None:
        """Unmount it. No process may have a file open there."""
        await _run("umount", str(self.path))

    def cut_power(self) -> None:
        """Make every call below `path` fail until it is mounted again. Unsynced data is lost."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, GOING_DOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)


@asynccontextmanager
async def journaled(directory: Path, size_bytes: int) -> AsyncIterator[Volume]:
    """A new ext4, mounted. Raises Unable."""
    _check_tools("mkfs.ext4", "mount", "umount")
    image, path = directory / "disk.img", directory / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    await _run("mkfs.ext4", "-q", str(image))
    volume = Volume(image, path)
    await volume.mount()
    try:
        yield volume
    finally:
        await _release(path)


@asynccontextmanager
async def small(directory: Path, size_bytes: int) -> AsyncIterator[Path]:
    """A new tmpfs of that size, mounted. Raises Unable."""
    _check_tools("mount", "umount")
    path = directory / "disk"
    path.mkdir()
    await _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path))
    try:
        yield path
    finally:
        await _release(path)


async def _release(path: Path) -> None:
    # A failed test may have unmounted it already, or left a file open.
    with contextlib.suppress(Unable):
        await _run("umount", "--lazy", str(path))


def _check_tools(*names: str) -> None:
    if os.geteuid() != 0:
        raise Unable("only root may mount file systems")
    for name in names:
        if shutil.which(name) is None:
            raise Unable(f"{name} is not installed")


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    if process.returncode != 0:
        raise Unable(f"{' '.join(command[:3])}: {errors.decode(errors='replace').strip()}")
