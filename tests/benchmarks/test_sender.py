"""The C sender, to the daemon and to the limit: both store what it sends and refuse a false digest."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import certificate, payload, process, sender, uplinkd
from benchmarks.payload import Payload
from benchmarks.sender import Load
from benchmarks.uplinkd import Uplinkd
from protocol.constants import ChecksumKind

PAYLOAD_BYTES = 100_000

BYTES = 150_001
"""More than the payload, so that it repeats, and not a multiple of the chunk size."""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return payload.make(tmp_path_factory.mktemp("payload"), PAYLOAD_BYTES)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uplinkd]:
    with uplinkd.serving(tmp_path_factory.mktemp("daemon")) as running:
        yield running


def _sha256(content: Payload) -> bytes:
    data = content.path.read_bytes()
    return hashlib.sha256((data + data)[:BYTES]).digest()


def _stored(daemon: Uplinkd) -> list[bytes]:
    return [path.read_bytes() for path in (daemon.data_dir / "files").glob("*/*")]


@pytest.mark.parametrize("kind", list(ChecksumKind))
@pytest.mark.parametrize(("chunk_bytes", "connections"), [(1024, 3), (64 * 1024, 1)])
def test_the_daemon_keeps_what_each_device_sends(
    daemon: Uplinkd, content: Payload, tmp_path: Path, kind: ChecksumKind, chunk_bytes: int, connections: int
) -> None:
    load = Load(content, BYTES, chunk_bytes, kind, connections, sha256=_sha256(content))
    name = f"{kind.name}-{chunk_bytes}"
    sent = sender.send(daemon, load, tmp_path, name)
    assert (sent.bytes, sent.frames) == (connections * BYTES, connections * -(-BYTES // chunk_bytes))
    assert 0 < sent.acked_s <= sent.finished_s
    assert [hashlib.sha256(file).digest() for file in _stored(daemon)] == [_sha256(content)] * connections
    sender.delete(daemon, name)
    assert not _stored(daemon)


def test_a_refusal_by_the_daemon_is_a_failure(daemon: Uplinkd, content: Payload, tmp_path: Path) -> None:
    load = Load(content, BYTES, 1024, sha256=bytes(32))
    with pytest.raises(process.Failed, match="0x33 came instead"):
        sender.send(daemon, load, tmp_path, "lie")


@pytest.mark.parametrize("kind", list(ChecksumKind))
@pytest.mark.parametrize(("chunk_bytes", "connections"), [(1024, 3), (64 * 1024, 1)])
def test_the_limit_accepts_the_same_frames(
    content: Payload, tmp_path: Path, kind: ChecksumKind, chunk_bytes: int, connections: int
) -> None:
    sent, received = sender.send_to_limit(Load(content, BYTES, chunk_bytes, kind, connections), tmp_path)
    assert sent.bytes == connections * BYTES
    assert received.syncs >= connections
    assert received.cpu_s > 0
    assert not (tmp_path / "limit").exists()


def test_the_limit_accepts_tls_and_a_digest(content: Payload, tmp_path: Path) -> None:
    load = Load(content, BYTES, 64 * 1024, is_tls=True, sha256=_sha256(content))
    sent, _ = sender.send_to_limit(load, tmp_path, certificate.make(tmp_path))
    assert sent.bytes == BYTES


def test_kept_frames_are_sent_again(content: Payload, tmp_path: Path) -> None:
    load = Load(content, BYTES, 1024, sha256=_sha256(content), keeps_frames=True)
    for _ in range(2):
        sender.send_to_limit(load, tmp_path)
    (tmp_path / "frames").write_bytes(b"others")
    with pytest.raises(process.Failed, match="holds other frames"):
        sender.send_to_limit(load, tmp_path)


def test_the_limit_refuses_a_false_digest(content: Payload, tmp_path: Path) -> None:
    load = Load(content, BYTES, 64 * 1024, sha256=bytes(32))
    with pytest.raises(process.Failed):
        sender.send_to_limit(load, tmp_path)
    assert "SHA-256 differs from that in FINISH" in (tmp_path / "limit.log").read_text()
