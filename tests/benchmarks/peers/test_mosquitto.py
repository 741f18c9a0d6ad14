"""Mosquitto keeps what it acknowledged, and in its durable configuration saves it while it runs."""

import re
from pathlib import Path

import pytest

from benchmarks import process
from benchmarks.peers import broker, mosquitto
from tests.support.receiving_peers import needs

pytestmark = needs(mosquitto.missing)

PAYLOAD_BYTES = 1024


def kept(directory: Path) -> int:
    """The number of messages in the saved database, counted by their topics."""
    database = directory / "mosquitto.db"
    return len(re.findall(rb"up/\d{6}", database.read_bytes())) if database.exists() else 0


def test_every_message_is_acknowledged_and_kept_for_the_offline_subscriber(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=False, connections=3) as running:
        published = broker.publish(running, 3, 500, PAYLOAD_BYTES, 100)
        assert kept(tmp_path / "broker") == 0
    assert published.messages == 1500
    assert published.acked_s > 0
    assert kept(tmp_path / "broker") == 1500


def test_the_durable_configuration_saves_while_the_broker_runs(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=True, connections=1) as running:
        broker.publish(running, 1, 20, PAYLOAD_BYTES, 20)
        # The last turn of the broker's loop may still be saving; all earlier turns have saved.
        assert kept(tmp_path / "broker") >= 19
        assert "fsynced" in running.promise


def test_packet_identifiers_wrap_around(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=False, connections=1) as running:
        assert broker.publish(running, 1, 70_000, 16, 1000).messages == 70_000


def test_the_broker_may_open_as_many_files_as_the_requested_connections_need(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=False, connections=5000) as running:
        limits = Path(f"/proc/{running.server.process.pid}/limits").read_text()
    soft = re.search(r"Max open files +(\d+)", limits)
    assert soft is not None
    assert int(soft[1]) >= 5000


def test_a_publisher_that_cannot_connect_fails_with_the_reason(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=False, connections=1) as running:
        pass
    with pytest.raises(process.Failed, match="cannot connect to port"):
        broker.publish(running, 1, 1, PAYLOAD_BYTES, 1)
