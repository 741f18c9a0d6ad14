"""A device's environment, the wheel without extras by requirements/device.txt: it sends files and starts no server."""

import hashlib
from pathlib import Path

import pytest

from tests.support.daemon_process import DaemonProcess
from tests.support.installs import BASE_PYTHON, needs_wheels, project_wheel, run, succeed
from tests.support.lock_files import LOCKS
from tests.support.source_modules import MODULES

pytestmark = needs_wheels

DEVICE = "camera-1"

SEND = """\
import asyncio, sys
from device.client import Uplink
from device.credentials import SecretCredentials

async def main(host, port, device, secret, path):
    async with Uplink(host, int(port), SecretCredentials(device, secret)) as uplink:
        with open(path, "rb") as source:
            sent = await uplink.send(source, "clip.bin")
    print(f"{sent.upload_id:016x} {sent.size}")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment made as docs and README say for devices."""
    directory = tmp_path_factory.mktemp("device")
    succeed(BASE_PYTHON, "-m", "venv", directory / "venv")
    found = directory / "venv" / "bin"
    pip_install = (found / "python", "-m", "pip", "install", "--quiet")
    succeed(*pip_install, "--require-hashes", "--requirement", LOCKS / "device.txt")
    # Not --no-deps: pip fails when the lock lacks something.
    succeed(*pip_install, project_wheel(directory))
    return found


# -P keeps the checkout, which is the working directory, from being imported instead.


def test_every_module_of_the_client_can_be_imported(binaries: Path) -> None:
    modules = sorted(module.name for module in MODULES.values() if module.room in {"device", "protocol"})
    assert "device.cli.main" in modules
    shown = succeed(binaries / "python", "-P", "-c", f"import {', '.join(modules)}; print(device.__file__)")
    assert str(binaries.parent) in shown


async def test_it_sends_a_file_to_a_daemon(binaries: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.bin"
    clip.write_bytes(bytes(range(256)) * 4096)
    async with DaemonProcess(tmp_path / "data") as daemon:
        secret = (await daemon.command("device", "add", DEVICE, "--quiet")).strip()
        host, port = daemon.addresses.listen
        said = succeed(binaries / "python", "-P", "-c", SEND, host, str(port), DEVICE, secret, clip)
        upload_id, size = said.split()
        assert int(size) == clip.stat().st_size
        [stored] = [path for path in (tmp_path / "data").rglob(f"{upload_id}*") if path.is_file()]
        assert hashlib.sha256(stored.read_bytes()).digest() == hashlib.sha256(clip.read_bytes()).digest()


def test_the_command_for_people_runs(binaries: Path) -> None:
    assert "Send files to uplinkd" in succeed(binaries / "uplink", "--help")


@pytest.mark.parametrize("command", [("uplinkd", "serve"), ("python", "-P", "-m", "daemon")])
def test_the_server_says_what_to_install(binaries: Path, command: tuple[str, ...]) -> None:
    done = run(binaries / command[0], *command[1:])
    assert done.returncode == 1
    assert done.stderr.startswith("uplinkd: the server's packages are not installed: ")
    assert "uvloop" in done.stderr
    assert done.stderr.endswith("To run the server: pip install 'uplinkd[server]'\n")
