"""The path at which local storage keeps an upload's file."""

from pathlib import Path

from daemon.storage.local.layout import SHARDS


def path_of(tmp_path: Path, upload_id: int) -> Path:
    return tmp_path / "data" / "files" / f"{upload_id % SHARDS:02x}" / name(upload_id)


def name(upload_id: int) -> str:
    return f"{upload_id:016x}"
