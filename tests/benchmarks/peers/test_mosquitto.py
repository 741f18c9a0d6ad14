"""Mosquitto keeps what it acknowledged, and saves it before long when it is asked for its most durable."""

import re
from pathlib import Path

import pytest

from benchmarks import process
from benchmarks.peers import broker, mosquitto
from tests.support.receiving_peers import needs

pytestmark = needs(mosquitto.missing)

PAYLOAD_BYTES = 1024


def kept(directory: Path) -> int:
    """How many times one of the topics stands in the saved database: once a message."""
    database = directory / "mosquitto.db"
    return len(re.findall(rb"up/\d{6}", database.read_bytes())) if database.exists() else 0


def test_every_message_is_acknowledged_and_kept_for_the_subscriber_who_is_away(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=False, connections=3) as running:
        told = broker.publish(running, 3, 500, PAYLOAD_BYTES, 100)
        assert kept(tmp_path / "broker") == 0
    assert told.messages == 1500
    assert told.acked_s > 0
    assert kept(tmp_path / "broker") == 1500


def test_at_its_most_durable_it_saves_while_it_runs(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=True, connections=1) as running:
        broker.publish(running, 1, 20, PAYLOAD_BYTES, 20)
        # The last turn of its loop may still be saving; all the turns before have saved.
        assert kept(tmp_path / "broker") >= 19
        assert "fsynced" in running.promise


def test_more_messages_than_there_are_packet_identifiers_are_published(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=False, connections=1) as running:
        assert broker.publish(running, 1, 70_000, 16, 1000).messages == 70_000


def test_it_may_hold_as_many_connections_as_it_was_asked_for(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=False, connections=5000) as running:
        limits = Path(f"/proc/{running.server.process.pid}/limits").read_text()
    soft = re.search(r"Max open files +(\d+)", limits)
    assert soft is not None
    assert int(soft[1]) >= 5000


def test_a_publisher_that_is_not_answered_names_the_reason(tmp_path: Path) -> None:
    with mosquitto.serving(tmp_path / "broker", durable=False, connections=1) as running:
        pass
    with pytest.raises(process.Failed, match="cannot connect to port"):
        broker.publish(running, 1, 1, PAYLOAD_BYTES, 1)
