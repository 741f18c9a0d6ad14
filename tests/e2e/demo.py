"""`make demo`: send a file over a link that breaks again and again, and compare what arrives.

Everything is real: the daemon is a process of its own that syncs its storage, the device uses the client library, and
the link is a TCP proxy that cuts connections. The exit status is 0 only if every check succeeded.
"""

import argparse
import asyncio
import hashlib
import random
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from device.client import Uplink
from device.credentials import SecretCredentials
from device.exceptions import UplinkError
from device.report import Sent
from tests.support.cutting_proxy import CuttingProxy, Kind, Span
from tests.support.daemon_process import DaemonFailed, DaemonProcess

KIB = 1024
MIB = 1024 * KIB

FILE_BYTES = 64 * MIB
CUTS_MIN = 5
CUTS_MAX = 8

UP = Span(256 * KIB, 8 * MIB)
"""Each connection is cut after some amount in this range, so the file needs at least seven cuts."""

DOWN = Span(60, 400)
"""From the middle of the handshake to some dozens of acknowledgements. The limit that is reached first cuts."""

RANGE_BYTES = 3 * MIB
DEADLINE_S = 120

DEVICE = "demo-camera"
NAME = "clips/2026/demo.bin"


class DemoFailed(Exception):
    """A check failed."""


def check(holds: bool, what: str) -> None:
    """Raises DemoFailed with the text `what` unless it holds."""
    if not holds:
        raise DemoFailed(what)


def make_file(path: Path, rng: random.Random) -> str:
    """Write FILE_BYTES of random data. Returns their SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(FILE_BYTES // MIB):
            piece = rng.randbytes(MIB)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


async def upload(path: Path, sha256: str, secret: str, proxy: CuttingProxy) -> Sent:
    """Send the file through the proxy, however often it cuts the link."""
    host, port = proxy.address
    with path.open("rb") as file:
        async with Uplink(host, port, SecretCredentials(DEVICE, secret), deadline_s=DEADLINE_S) as uplink:
            return await uplink.send(file, NAME, sha256=bytes.fromhex(sha256))


@asynccontextmanager
async def control_plane(address: tuple[str, int], secret: str) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session with the device's token."""
    host, port = address
    base = f"http://{host}:{port}"
    credential = {"device": DEVICE, "secret": secret}
    async with aiohttp.ClientSession(base) as session, session.post("/v1/token", json=credential) as answer:
        check(answer.status == 200, f"the request for a token returned HTTP status {answer.status}")
        token = (await answer.json())["access_token"]
    async with aiohttp.ClientSession(base, headers={"Authorization": f"Bearer {token}"}) as session:
        yield session


async def listed(http: aiohttp.ClientSession) -> list[tuple[str, str, int]]:
    """The id, state and size of each file that has bytes."""
    async with http.get("/v1/files", params={"state": ["complete", "receiving", "partial", "rejected"]}) as answer:
        check(answer.status == 200, f"the list returned HTTP status {answer.status}")
        return [(file["id"], file["state"], file["size"]) for file in (await answer.json())["files"]]


async def read_range(http: aiohttp.ClientSession, file_id: str, path: Path, start: int) -> None:
    """Download a range from the middle and compare it with the file on disk."""
    end = start + RANGE_BYTES - 1
    async with http.get(f"/v1/files/{file_id}/content", headers={"Range": f"bytes={start}-{end}"}) as answer:
        check(answer.status == 206, f"the range returned HTTP status {answer.status}, not 206")
        expected = f"bytes {start}-{end}/{FILE_BYTES}"
        check(answer.headers.get("Content-Range") == expected, f"Content-Range is not {expected}")
        body = await answer.read()
    with path.open("rb") as file:
        file.seek(start)
        check(body == file.read(RANGE_BYTES), "the range's bytes differ from the file's")


async def download(http: aiohttp.ClientSession, file_id: str) -> str:
    """Download the whole file. Returns its SHA-256 in hex."""
    digest = hashlib.sha256()
    async with http.get(f"/v1/files/{file_id}/content") as answer:
        check(answer.status == 200, f"the download returned HTTP status {answer.status}")
        async for piece in answer.content.iter_chunked(MIB):
            digest.update(piece)
    return digest.hexdigest()


async def delete(http: aiohttp.ClientSession, file_id: str) -> None:
    """Delete the file and check that it is gone."""
    async with http.delete(f"/v1/files/{file_id}") as answer:
        check(answer.status == 204, f"the deletion returned HTTP status {answer.status}, not 204")
    async with http.get(f"/v1/files/{file_id}/content") as answer:
        check(answer.status in {404, 410}, f"the deleted file's content returned HTTP status {answer.status}")
    check(await listed(http) == [], "the deleted file is still listed")


async def demo(directory: Path, seed: int, say: Callable[[str], None]) -> str:
    """Run the demo. Returns the fields of its last line. Raises DemoFailed, DaemonFailed."""
    rng = random.Random(seed)
    path = directory / "demo.bin"
    sha256 = await asyncio.to_thread(make_file, path, rng)
    say(f"file      {FILE_BYTES // MIB} MiB of random data, sha256 {sha256[:16]}…, seed {seed}")
    async with DaemonProcess(directory / "data") as daemon:
        say("daemon    devices on {}:{}, operators on {}:{}".format(*daemon.addresses.listen, *daemon.addresses.http))
        secret = (await daemon.command("device", "add", DEVICE, "--quiet")).strip()
        say(f"device    {DEVICE} enrolled")
        say("upload    starts, over a link that is cut again and again")
        started = time.monotonic()
        async with CuttingProxy(daemon.addresses.listen, rng, up=UP, down=DOWN, cuts_max=CUTS_MAX) as proxy:
            sent = await upload(path, sha256, secret, proxy)
            cuts = proxy.cuts
        elapsed_s = time.monotonic() - started
        resets = sum(cut.kind is Kind.RESET for cut in cuts)
        say(f"link      cut {len(cuts)} times: {resets} resets, {len(cuts) - resets} closes")
        say("          " + ", ".join(f"{cut.after_bytes} B {cut.direction.name.lower()}" for cut in cuts))
        say(f"done      {elapsed_s:.1f} s, {sent.resumes} resumes, {sent.resent_bytes} bytes sent again")
        check(len(cuts) >= CUTS_MIN, f"the link was cut {len(cuts)} times, expected at least {CUTS_MIN}")
        check(sent.size == FILE_BYTES, f"the daemon has {sent.size} bytes, expected {FILE_BYTES}")
        async with control_plane(daemon.addresses.http, secret) as http:
            file_id = f"{sent.upload_id:016x}"
            check(
                await listed(http) == [(file_id, "complete", FILE_BYTES)],
                "the list is not just the complete file",
            )
            say(f"list      {file_id} {NAME}, complete")
            start = rng.randrange(FILE_BYTES - RANGE_BYTES)
            await read_range(http, file_id, path, start)
            say(f"range     bytes {start}-{start + RANGE_BYTES - 1}, equal")
            check(await download(http, file_id) == sha256, "the downloaded file's digest differs")
            say("download  whole file, digests equal")
            await delete(http, file_id)
            say("delete    gone from the list and the disk")
        check(not _holds_bytes(directory / "data"), "the deleted file's bytes are still on disk")
        status = await daemon.stop()
        check(status == 0, f"the daemon's exit status is {status}")
        say("daemon    drained and stopped")
    return f"cuts={len(cuts)} resent_bytes={sent.resent_bytes} sha256={sha256}"


def _holds_bytes(data_dir: Path) -> bool:
    return any(path.stat().st_size >= FILE_BYTES // 2 for path in data_dir.rglob("*") if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat the demo that printed this seed")
    chosen: int | None = parser.parse_args().seed
    seed = secrets.randbits(32) if chosen is None else chosen
    with tempfile.TemporaryDirectory(prefix="uplinkd-demo-") as directory:
        try:
            last = asyncio.run(demo(Path(directory), seed, lambda line: print(line, flush=True)))
        except (DemoFailed, DaemonFailed, UplinkError, aiohttp.ClientError, OSError) as error:
            print(f"demo: failed: {error}", file=sys.stderr)
            return 1
    print(f"demo: ok {last}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
