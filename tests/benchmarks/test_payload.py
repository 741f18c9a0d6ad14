from pathlib import Path

from benchmarks import payload


def test_a_payload_has_exactly_the_requested_size(tmp_path: Path) -> None:
    made = payload.make(tmp_path, payload.BLOCK_BYTES + 17)
    assert made.size_bytes == payload.BLOCK_BYTES + 17
    assert made.path.stat().st_size == made.size_bytes


def test_the_bytes_are_the_same_in_every_run(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, second = payload.make(tmp_path, 70_000), payload.make(tmp_path / "again", 70_000)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_no_byte_value_is_rare(tmp_path: Path) -> None:
    content = payload.make(tmp_path, 1 << 20).path.read_bytes()
    assert all(content.count(value) > len(content) / 512 for value in range(256))
