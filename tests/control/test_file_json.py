"""A file as JSON."""

from control.file_json import file_status, timestamp
from daemon.catalog.records import Metadata, State
from protocol.ranges import DigestedRange
from tests.support.fake_ports import make_file


def test_every_member_of_a_complete_file() -> None:
    file = make_file(metadata=Metadata("text/plain", "42", "a.txt"))
    assert file_status(file, 1_767_312_000_001) == {
        "id": "0000000000000abc",
        "device": "cam-1",
        "name": "log.bin",
        "state": "complete",
        "size": 10,
        "next_expected_byte": 10,
        "ranges": [{"start": 0, "end": 10}],
        "created": "2025-12-31T23:59:00.000Z",
        "updated": "2026-01-01T00:00:00.000Z",
        "completed": "2026-01-01T00:00:00.000Z",
        "expires": "2026-01-02T00:00:00.001Z",
        "digests": {"crc32c": "0a0b0c0d", "sha256": bytes(range(32)).hex()},
        "metadata": {"content_type": "text/plain", "external_id": "42", "original_name": "a.txt"},
    }


def test_what_is_unknown_is_null() -> None:
    file = make_file(
        state=State.RECEIVING,
        size=None,
        ranges=(DigestedRange(4, 8, 0),),
        completed_ms=None,
        crc32c=None,
        sha256=None,
    )
    members = file_status(file, None)
    assert [members[name] for name in ("size", "completed", "expires")] == [None, None, None]
    assert members["digests"] == {"crc32c": None, "sha256": None}
    assert members["metadata"] == {"content_type": None, "external_id": None, "original_name": None}
    assert members["ranges"] == [{"start": 4, "end": 8}]


def test_timestamps_keep_their_milliseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_767_225_599_999) == "2025-12-31T23:59:59.999Z"
