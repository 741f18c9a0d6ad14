"""What identifies a source: which are hashed first, which are watched, and what each finds."""

import io
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from device import transfer_source
from device.digest import Digest
from device.exceptions import SourceChanged
from device.transfer_source import HashedSource, TransferSource, UnidentifiedSource, WatchedFile, open_transfer_source
from protocol.checksum import Buffer, crc32c
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
    source: Buffer | BinaryIO, size: int | None = None, tag: bytes | None = None, sha256: bytes | None = None
) -> TransferSource:
    return await open_transfer_source(source, size, tag=tag, sha256=sha256, identify=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """DATA counts as a large file."""
    monkeypatch.setattr(transfer_source, "HASHED_FIRST_BYTES_MAX", len(DATA) - 1)


def modify(path: Path) -> None:
    os.utime(path, ns=(0, 1))


async def test_a_small_file_is_hashed_first(path: Path) -> None:
    with path.open("rb") as file:
        opened = await identified(file)
        assert isinstance(opened, HashedSource)
        assert (opened.tag, opened.sha256, await opened.digest()) == (DIGEST, DIGEST, WHOLE)


@pytest.mark.usefixtures("is_large")
async def test_a_large_file_is_watched_while_it_is_read(path: Path) -> None:
    with path.open("rb") as file:
        opened = await identified(file)
        assert isinstance(opened, WatchedFile)
        assert opened.sha256 is None
        assert opened.tag == b"mtime_ns:%d" % os.fstat(file.fileno()).st_mtime_ns
        assert len(opened.tag) <= TAG_BYTES_MAX
        assert await opened.read(1000, 10) == DATA[1000:1010]
        assert await opened.digest() == Digest(crc32c(DATA), None)


@pytest.mark.usefixtures("is_large")
@pytest.mark.parametrize("kind", ["memory", "stream", "first bytes", "decompressed"])
async def test_what_cannot_be_watched_is_hashed_first_whatever_its_size(kind: str, path: Path) -> None:
    packed = path.with_name("packed")
    packed.write_bytes(DATA[:100])
    with path.open("rb") as file, packed.open("rb") as compressed:
        sources: dict[str, Buffer | BinaryIO] = {
            "memory": DATA,
            "stream": io.BytesIO(DATA),
            "first bytes": file,
            "decompressed": Decompressed(DATA, compressed.fileno()),
        }
        opened = await identified(sources[kind], len(DATA) if kind == "first bytes" else None)
        assert isinstance(opened, HashedSource)
        assert await opened.digest() == WHOLE


@pytest.mark.usefixtures("is_large")
async def test_a_tag_or_a_digest_of_the_callers_own_goes_first(path: Path) -> None:
    with path.open("rb") as file:
        for source in (DATA, file):
            assert (await identified(source, tag=b"7")).tag == b"7"
            assert (await identified(source, tag=b"")).tag == b""
            opened = await identified(source, sha256=DIGEST)
            assert (opened.tag, opened.sha256, await opened.digest()) == (DIGEST, DIGEST, WHOLE)


@pytest.mark.usefixtures("is_large")
async def test_a_digest_that_the_source_does_not_have_is_reported(path: Path) -> None:
    with pytest.raises(SourceChanged, match="not the one that was given"):
        await identified(DATA, sha256=bytes(32))
    with path.open("rb") as file:
        opened = await identified(file, sha256=bytes(32))
        with pytest.raises(SourceChanged, match="not the one that was given"):
            await opened.digest()


async def test_a_check_finds_bytes_that_were_exchanged() -> None:
    memory = bytearray(DATA)
    opened = await identified(memory)
    await opened.check()
    memory[-1] ^= 1
    with pytest.raises(SourceChanged, match=f"its SHA-256 was {DIGEST.hex()} and is "):
        await opened.check()


@pytest.mark.usefixtures("is_large")
async def test_a_watched_file_is_not_read_once_it_was_modified(path: Path) -> None:
    with path.open("rb") as file:
        opened = await identified(file)
        await opened.check()
        modify(path)
        with pytest.raises(SourceChanged, match="the file changed while it was being sent"):
            await opened.check()
        with pytest.raises(SourceChanged):
            await opened.read(0, 10)


@pytest.mark.usefixtures("is_large")
async def test_renaming_or_replacing_the_file_changes_nothing(path: Path) -> None:
    with path.open("rb") as file:
        opened = await identified(file)
        path.rename(path.with_name("moved"))  # noqa: ASYNC240 - a file of the test's own
        path.write_bytes(b"another")  # noqa: ASYNC240 - as above
        assert await opened.digest() == Digest(crc32c(DATA), None)


async def test_without_identification_only_what_was_read_has_a_digest(path: Path) -> None:
    with path.open("rb") as file:
        for source in (DATA, file):
            opened = await open_transfer_source(source, None, tag=None, sha256=None, identify=False)
            assert isinstance(opened, UnidentifiedSource)
            assert (opened.tag, opened.sha256) == (None, None)
            await opened.read(100, 1000)
            assert await opened.digest() == Digest(None, None)
            await opened.read(0, len(DATA))
            assert await opened.digest() == Digest(crc32c(DATA), None)
            await opened.check()
