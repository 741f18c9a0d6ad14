"""Where local storage keeps files: named by upload id, in 256 directories."""

import re
from dataclasses import dataclass
from pathlib import Path

from daemon.adapters.files import FileSystem
from protocol.constants import OFFSET_MAX

SHARDS = 256
"""A million files make directories of four thousand, which every file system handles well."""

SHARED_MODE = 0o750
"""The daemon's umask narrows it to 0700. With a default ACL on `files`, users that the ACL names can enter."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The directories below `root`."""

    root: Path

    @property
    def files(self) -> Path:
        """Holds the shards."""
        return self.root / "files"

    @property
    def quarantine(self) -> Path:
        """Holds what was found in a shard and belongs to no upload."""
        return self.root / "quarantine"

    @property
    def shards(self) -> list[Path]:
        """All directories of uploads' files."""
        return [self.shard(shard) for shard in range(SHARDS)]

    def shard(self, shard: int) -> Path:
        """One directory of uploads' files."""
        return self.files / f"{shard:02x}"

    def relative(self, upload_id: int) -> str:
        """The file of an upload, below `files`."""
        return f"{upload_id % SHARDS:02x}/{upload_id:016x}"

    def path(self, upload_id: int) -> Path:
        """The file of an upload."""
        return self.files / self.relative(upload_id)

    def prepare(self, files: FileSystem) -> None:
        """Make the directories and their names durable. Raises OSError."""
        if files.create_directory(self.root):
            files.sync_directory(self.root.parent)
        files.create_directory(self.quarantine)
        for directory in (self.files, *self.shards):
            files.create_directory(directory, SHARED_MODE)
        # Always: the run that made them may have been cut off before this.
        files.sync_directory(self.files)
        files.sync_directory(self.root)


def upload_id_of(name: str, shard: int) -> int | None:
    """The upload whose file has this name in this shard; None for a name that storage does not give there."""
    if not re.fullmatch("[0-9a-f]{16}", name):
        return None
    upload_id = int(name, 16)
    # Ids are as large as offsets: both end where the catalog's integers do.
    return upload_id if upload_id % SHARDS == shard and 0 < upload_id <= OFFSET_MAX else None
