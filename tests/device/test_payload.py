"""What identifies a source: which are hashed first, which are watched, and what each finds."""

import io
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from device import payload as payload_module
from device.digest import Digest
from device.exceptions import SourceChanged
from device.payload import HashedPayload, Payload, UnidentifiedPayload, WatchedFile, open_payload
from device.source import Bytes
from protocol.checksum import crc32c
from protocol.constants import TAG_BYTES_MAX
from tests.support.content import DATA, DIGEST

WHOLE = Digest(crc32c(DATA), DIGEST)


class Decompressed(io.BytesIO):
    """Reads other bytes than its descriptor does, as gzip.GzipFile."""

    def __init__(self, data: bytes, descriptor: int) -> None:
        super().__init__(data)
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


async def identified(
    source: Bytes | BinaryIO, size: int | None = None, tag: bytes | None = None, sha256: bytes | None = None
) -> Payload:
    return await open_payload(source, size, tag=tag, sha256=sha256, identify=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """DATA counts as a large file."""
    monkeypatch.setattr(payload_module, "HASHED_FIRST_BYTES_MAX", len(DATA) - 1)


def modify(path: Path) -> None:
    os.utime(path, ns=(0, 1))


async def test_a_small_file_is_hashed_first(path: Path) -> None:
    with path.open("rb") as file:
        payload = await identified(file)
        assert isinstance(payload, HashedPayload)
        assert (payload.tag, payload.sha256, await payload.digest()) == (DIGEST, DIGEST, WHOLE)


@pytest.mark.usefixtures("is_large")
async def test_a_large_file_is_watched_while_it_is_read(path: Path) -> None:
    with path.open("rb") as file:
        payload = await identified(file)
        assert isinstance(payload, WatchedFile)
        assert payload.sha256 is None
        assert payload.tag == b"mtime_ns:%d" % os.fstat(file.fileno()).st_mtime_ns
        assert len(payload.tag) <= TAG_BYTES_MAX
        assert await payload.read(1000, 10) == DATA[1000:1010]
        assert await payload.digest() == Digest(crc32c(DATA), None)


@pytest.mark.usefixtures("is_large")
@pytest.mark.parametrize("kind", ["memory", "stream", "first bytes", "decompressed"])
async def test_what_cannot_be_watched_is_hashed_first_whatever_its_size(kind: str, path: Path) -> None:
    packed = path.with_name("packed")
    packed.write_bytes(DATA[:100])
    with path.open("rb") as file, packed.open("rb") as compressed:
        sources: dict[str, Bytes | BinaryIO] = {
            "memory": DATA,
            "stream": io.BytesIO(DATA),
            "first bytes": file,
            "decompressed": Decompressed(DATA, compressed.fileno()),
        }
        payload = await identified(sources[kind], len(DATA) if kind == "first bytes" else None)
        assert isinstance(payload, HashedPayload)
        assert await payload.digest() == WHOLE


@pytest.mark.usefixtures("is_large")
async def test_a_tag_or_a_digest_of_the_callers_own_goes_first(path: Path) -> None:
    with path.open("rb") as file:
        for source in (DATA, file):
            assert (await identified(source, tag=b"7")).tag == b"7"
            assert (await identified(source, tag=b"")).tag == b""
            payload = await identified(source, sha256=DIGEST)
            assert (payload.tag, payload.sha256, await payload.digest()) == (DIGEST, DIGEST, WHOLE)


@pytest.mark.usefixtures("is_large")
async def test_a_digest_that_the_source_does_not_have_is_reported(path: Path) -> None:
    with pytest.raises(SourceChanged, match="not the one that was given"):
        await identified(DATA, sha256=bytes(32))
    with path.open("rb") as file:
        payload = await identified(file, sha256=bytes(32))
        with pytest.raises(SourceChanged, match="not the one that was given"):
            await payload.digest()


async def test_a_check_finds_bytes_that_were_exchanged() -> None:
    memory = bytearray(DATA)
    payload = await identified(memory)
    await payload.check()
    memory[-1] ^= 1
    with pytest.raises(SourceChanged, match=f"its SHA-256 was {DIGEST.hex()} and is "):
        await payload.check()


@pytest.mark.usefixtures("is_large")
async def test_a_watched_file_is_not_read_once_it_was_modified(path: Path) -> None:
    with path.open("rb") as file:
        payload = await identified(file)
        await payload.check()
        modify(path)
        with pytest.raises(SourceChanged, match="the file changed while it was being sent"):
            await payload.check()
        with pytest.raises(SourceChanged):
            await payload.read(0, 10)


@pytest.mark.usefixtures("is_large")
async def test_renaming_or_replacing_the_file_changes_nothing(path: Path) -> None:
    with path.open("rb") as file:
        payload = await identified(file)
        path.rename(path.with_name("moved"))  # noqa: ASYNC240 - a file of the test's own
        path.write_bytes(b"another")  # noqa: ASYNC240 - as above
        assert await payload.digest() == Digest(crc32c(DATA), None)


async def test_without_identification_only_what_was_read_has_a_digest(path: Path) -> None:
    with path.open("rb") as file:
        for source in (DATA, file):
            payload = await open_payload(source, None, tag=None, sha256=None, identify=False)
            assert isinstance(payload, UnidentifiedPayload)
            assert (payload.tag, payload.sha256) == (None, None)
            await payload.read(100, 1000)
            assert await payload.digest() == Digest(None, None)
            await payload.read(0, len(DATA))
            assert await payload.digest() == Digest(crc32c(DATA), None)
            await payload.check()
