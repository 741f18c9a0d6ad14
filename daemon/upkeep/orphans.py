"""Looks for stored files that belong to no upload, a few shards of storage at a time, and quarantines them.

They are never deleted: the catalog does not know them, and it may be the catalog that is wrong. How many of a large
sample are orphans shows which it is, so nothing is quarantined before the whole sample has been searched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from daemon.catalog.interface import Catalog
from daemon.storage.interface import Inventory, Stored

SHARDS_PER_PASS = 8
"""Shards of storage listed in one pass, so that every pass costs the same. With 256 shards and the default interval, a
process that runs for three hours has listed them all."""

FILES_PER_PASS = 500
"""Files searched in one pass, which takes a millisecond or two. A million files take a week."""

SAMPLE_FILES = 10_000
"""Files judged together, or all if there are fewer. Upload ids are spread evenly over the shards, so the fraction of
orphans in a sample is that of all files; and it bounds what is remembered."""

ORPHAN_AGE_S = 24 * 3600
"""A younger file is left alone: whatever wrote it may still be at work."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file called `name` in a `shard` of storage, which belongs to no upload."""

    shard: int
    name: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Files judged together: how many shards were listed, how many files searched, and the orphans among them."""

    shards: int = 0
    searched: int = 0
    found: tuple[Orphan, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchState:
    """Where a search continues: with the files in `unsearched`, which `shard` lists, then with the next shard."""

    shard: int = -1
    unsearched: Sequence[Stored] = ()
    sample: Sample = Sample()


class OrphanSearch:
    """The search of one pass. Its methods raise CatalogFailed and OSError."""

    def __init__(
        self, catalog: Catalog, inventory: Inventory, is_live: Callable[[int], bool], now_ms: int, state: SearchState
    ) -> None:
        """`is_live` says whether an upload is in use."""
        self._catalog = catalog
        self._inventory = inventory
        self._is_live = is_live
        self._before_ms = now_ms - ORPHAN_AGE_S * 1000
        self.state = state
        """Where the next pass continues."""

    async def find(self) -> Sample:
        """Continue the search. Returns the sample if this completes it, else an empty one."""
        files_left, shards_left = FILES_PER_PASS, SHARDS_PER_PASS
        while not self._is_complete and files_left and (self.state.unsearched or shards_left):
            if self.state.unsearched:
                files_left -= await self._search(min(files_left, SAMPLE_FILES - self.state.sample.searched))
            else:
                shards_left -= 1
                await self._list_next()
        if not self._is_complete:
            return Sample()
        sample, self.state = self.state.sample, replace(self.state, sample=Sample())
        return sample

    async def quarantine(self, orphan: Orphan) -> bool:
        """Quarantine an orphan. False: it was deleted since it was found."""
        try:
            await self._inventory.quarantine(orphan.shard, orphan.name)
        except FileNotFoundError:
            return False
        return True

    @property
    def _is_complete(self) -> bool:
        sample = self.state.sample
        listed_all = sample.shards >= self._inventory.shards and not self.state.unsearched
        return sample.searched >= SAMPLE_FILES or listed_all

    async def _list_next(self) -> None:
        sample = self.state.sample
        shard = (self.state.shard + 1) % self._inventory.shards
        files = await self._inventory.stored(shard)
        self.state = SearchState(shard, files, replace(sample, shards=sample.shards + 1))

    async def _search(self, count_max: int) -> int:
        """Search the next files of the shard. Returns how many."""
        sample, files = self.state.sample, self.state.unsearched[:count_max]
        found = (*sample.found, *await self._orphans(files))
        self.state = SearchState(
            self.state.shard,
            self.state.unsearched[count_max:],
            Sample(sample.shards, sample.searched + len(files), found),
        )
        return len(files)

    async def _orphans(self, files: Sequence[Stored]) -> list[Orphan]:
        """Files that belong to no upload and are old enough. A name that storage does not give belongs to none."""
        known = await self._catalog.existing([each.upload_id for each in files if each.upload_id is not None])
        unknown = [
            each
            for each in files
            if each.upload_id is None or not (each.upload_id in known or self._is_live(each.upload_id))
        ]
        shard = self.state.shard
        orphans = []
        for each in unknown:
            # To ask for the age of every file would cost as much as the rest of the pass.
            modified_ms = await self._inventory.modified_ms(shard, each.name)
            if modified_ms is not None and modified_ms < self._before_ms:
                orphans.append(Orphan(shard, each.name))
        return orphans
