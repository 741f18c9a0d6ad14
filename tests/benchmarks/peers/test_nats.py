"""NATS JetStream stores what it acknowledged, and a refused message is an error."""

from pathlib import Path

import pytest

from benchmarks import process
from benchmarks.peers import broker, nats, programs
from tests.support.receiving_peers import needs

pytestmark = needs(nats.missing)

PAYLOAD_BYTES = 1024


def stored_bytes(directory: Path) -> int:
    return sum(block.stat().st_size for block in directory.rglob("*.blk"))


@pytest.mark.parametrize("durable", [False, True])
def test_every_message_is_acknowledged_and_stored(tmp_path: Path, durable: bool) -> None:
    with nats.serving(tmp_path / "server", durable, connections=3) as running:
        published = broker.publish(running, 3, 200, PAYLOAD_BYTES, 50)
    assert published.messages == 600
    assert published.acked_s > 0
    assert stored_bytes(tmp_path / "server") > 600 * PAYLOAD_BYTES
    assert ("fsynced before its ack" in running.promise) is durable


def test_a_refused_message_ends_the_publisher(tmp_path: Path) -> None:
    with (
        nats.serving(tmp_path / "server", durable=False, connections=1) as running,
        pytest.raises(process.Failed, match=r"Maximum Payload Violation|closed after|cannot write"),
    ):
        broker.publish(running, 1, 1, 2 << 20, 1)


def test_a_server_that_cannot_sync_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    old.chmod(0o755)
    monkeypatch.setattr(nats, "INSTALLED", tmp_path)
    absent = nats.missing()
    assert absent is not None
    assert absent.startswith("nats-server 2.10 or later")
    assert str(old) in absent


def test_a_missing_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "INSTALLED", tmp_path / "absent")
    monkeypatch.setattr(programs, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nats.missing() == "nats-server"
