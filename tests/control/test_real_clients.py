"""Clients that are not ours: what they resume, split and reassemble must be the file."""

import asyncio
import hashlib
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from yarl import URL

from tests.support.fake_ports import World

DATA = random.Random(9110).randbytes(12_000_000)
BEARER = "Authorization: Bearer operator"


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


async def run(*arguments: str, code: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == code, output.decode()
    return output.decode()


@pytest.fixture
def url(base: URL, world: World) -> str:
    file = world.put(DATA)
    return str(base.with_path(f"/v1/files/{file.id:016x}/content"))


def assert_same(path: Path) -> None:
    assert hashlib.sha256(path.read_bytes()).hexdigest() == hashlib.sha256(DATA).hexdigest()


def statuses(world: World) -> Sequence[int]:
    return [exchange.status for exchange in world.http_metrics.seen]


@needs("curl")
async def test_curl_resumes_what_was_cut(url: str, world: World, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(DATA[:5_000_001])
    await run("curl", "-sS", "--fail", "-C", "-", "-H", BEARER, "-o", str(target), url)
    assert_same(target)
    assert statuses(world) == [206]
    assert world.http_metrics.seen[0].sent_bytes == len(DATA) - 5_000_001


@needs("curl")
async def test_curl_names_the_file_as_the_server_says(url: str, tmp_path: Path) -> None:
    await run("curl", "-sS", "--fail", "-OJ", "--output-dir", str(tmp_path), "-H", BEARER, url)
    assert_same(tmp_path / "log.bin")


@needs("curl")
async def test_curl_takes_several_ranges(url: str, tmp_path: Path) -> None:
    target = tmp_path / "parts"
    await run("curl", "-sS", "--fail", "-r", "0-9,1000000-1000009,-10", "-H", BEARER, "-o", str(target), url)
    body = target.read_bytes()
    for piece in [DATA[:10], DATA[1_000_000:1_000_010], DATA[-10:]]:
        assert b"\r\n\r\n" + piece + b"\r\n" in body


@needs("curl")
async def test_curl_sees_a_refusal_as_one(base: URL) -> None:
    output = await run("curl", "-sS", "--fail-with-body", str(base.with_path("/v1/files")), code=22)
    assert '"UNAUTHENTICATED"' in output


@needs("wget")
async def test_wget_resumes_what_was_cut(url: str, world: World, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(DATA[:7_654_321])
    await run("wget", "-q", "-c", f"--header={BEARER}", "-O", str(target), url)
    assert_same(target)
    assert statuses(world)[-1] == 206


@needs("aria2c")
async def test_aria2_puts_several_connections_together(url: str, world: World, tmp_path: Path) -> None:
    await run(
        "aria2c", "-q", "--no-conf", "-x", "4", "-s", "4", "-k", "1M", f"--header={BEARER}", "-d", str(tmp_path),
        "-o", "file", url,
    )  # fmt: skip
    assert_same(tmp_path / "file")
    assert statuses(world).count(206) >= 3
