"""The C program with many uploads, against a daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import greedy, process, uplinkd, wire
from benchmarks.greedy import Greed
from benchmarks.uplinkd import Uplinkd


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uplinkd]:
    with uplinkd.serving(tmp_path_factory.mktemp("daemon")) as running:
        yield running


def hellos(path: Path, *frames: bytes) -> Path:
    path.write_bytes(b"".join(len(each).to_bytes(4, "big") + each for each in frames))
    return path


@pytest.mark.parametrize("kind", ["sum8", "compact", "crc32c"])
def test_all_chunks_are_acknowledged_and_the_next_run_goes_on(daemon: Uplinkd, tmp_path: Path, kind: str) -> None:
    devices = hellos(tmp_path / "hellos", *(wire.hello(daemon.token(f"{kind}-{number}")) for number in range(2)))
    greed = Greed(connections=2, streams=3, chunk_bytes=7, chunks=300, kind=kind)
    for round_number in (1, 2):
        sent = greedy.send(greed, daemon.port, devices)
        assert (sent.chunks, sent.nacks) == (600, 0)
        sizes = [path.stat().st_size for path in (daemon.data_dir / "files").rglob("*") if path.is_file()]
        assert sizes.count(round_number * 100 * 7) >= 6


def test_a_refused_device_is_a_failure(daemon: Uplinkd, tmp_path: Path) -> None:
    stranger = hellos(tmp_path / "hellos", wire.hello("no token"))
    with pytest.raises(process.Failed):
        greedy.send(Greed(1, 1, 1, 1), daemon.port, stranger)
