"""What lies in the directories of local storage, whoever put it there."""

import itertools

from daemon.adapters.files import FileSystem
from daemon.adapters.threads import Lane
from daemon.storage.interface import Stored
from daemon.storage.local.calls import Call, call
from daemon.storage.local.layout import SHARDS, Layout, upload_id_of
from daemon.storage.local.staging import LocalStaging


class LocalInventory:
    """Lists on `lane`, and quarantines after the writes queued before."""

    def __init__(self, layout: Layout, files: FileSystem, lane: Lane[Call], staging: LocalStaging) -> None:
        self._layout = layout
        self._files = files
        self._lane = lane
        self._staging = staging

    @property
    def shards(self) -> int:
        return SHARDS

    async def stored(self, shard: int) -> tuple[Stored, ...]:
        directory = self._layout.shard(shard)

        def run() -> tuple[Stored, ...]:
            return tuple([Stored(name, upload_id_of(name, shard)) for name in self._files.names(directory)])

        return await call(self._lane, run)

    async def modified_ms(self, shard: int, name: str) -> int | None:
        path = self._layout.shard(shard) / name
        return await call(self._lane, lambda: self._files.modified_ms(path))

    async def quarantine(self, shard: int, name: str) -> None:
        source = self._layout.shard(shard) / name
        quarantine = self._layout.quarantine

        def run() -> None:
            # Names stay as they are, and nothing that was put there before under the same name is replaced.
            places = (quarantine / f"{shard:02x}-{number}" for number in itertools.count(1))
            place = next(each for each in places if self._files.modified_ms(each / name) is None)
            self._files.create_directory(place)
            self._files.move(source, place / name)
            self._files.sync_directory(place)
            self._files.sync_directory(quarantine)

        await self._staging.after_writes(run)
