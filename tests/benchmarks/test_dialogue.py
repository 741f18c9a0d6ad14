"""A device that sends one request at a time and waits for the answer."""

from pathlib import Path

import pytest

from benchmarks import process, wire
from benchmarks.dialogue import Dialogue
from benchmarks.uplinkd import serving
from protocol import frames


def test_a_file_is_stored_and_finished(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon, Dialogue(daemon, "device") as device:
        device.store("name", b"content", stream=1)
        finished = device.ask(wire.finish(len(b"content"), 1), frames.Finished)
    assert finished.size == len(b"content")


def test_many_files_are_stored_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon, Dialogue(daemon, "device") as device:
        device.store_all(["one", "other"], b"content")
        assert device.ask(wire.finish(len(b"content"), 2), frames.Finished).size == len(b"content")


def test_an_unexpected_answer_is_a_failure(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as daemon,
        Dialogue(daemon, "device") as device,
        pytest.raises(process.Failed, match="Error"),
    ):
        device.ask(wire.finish(1, stream=1), frames.Finished)
